"""Every sampler converges, at its order, to the exact answer: the probability flow of Gaussian data, or the data's moments.

A new process is tested by being in PROCESSES. A new sampler needs a line in ORDERS or in STOCHASTIC below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import PROCESSES
from unstir.samplers import SAMPLERS, Heun
from unstir.sampling import SampleNoise, Sampler, sample

# Solvers of the probability-flow ODE with their defaults: name -> order.
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2}
# What draws fresh noise: name -> settings for a number of steps, with which it converges to the moments of the data.
STOCHASTIC: dict[str, list[Callable[[int], dict[str, Any]]]] = {
    "ddpm": [lambda n: {"noise": "posterior"}, lambda n: {"noise": "large"}, lambda n: {"noise": "learned"}],
    "ddim": [lambda n: {"eta": 0.5}, lambda n: {"eta": 1.0}],
    "euler": [lambda n: {"churn": 4 / n}],
    "heun": [lambda n: {"churn": 4 / n}, lambda n: {"churn": 8 / n, "churn_from": 0.1, "churn_to": 2.0}],
}
STEPS = [10, 20, 40, 80]


def f64(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@cache
def process_of(name: str) -> Process:
    return PROCESSES[name]()


@cache
def grid(process: Process, steps: int) -> Tensor:
    """Equal steps of log-SNR where it is finite: from a noise level of 10, or what there is, down to 0.05."""
    high = min(float(process.sigma(f64(process.t_max)) / process.alpha(f64(process.t_max))), 10.0)
    return process.t_at_noise_ratio(
        torch.linspace(math.log(high), math.log(0.05), steps + 1, dtype=torch.float64).exp()
    )


def slope(errors: list[float]) -> float:
    """The order of convergence: minus the slope of log error on log steps."""
    steps, error = f64(*STEPS).log(), f64(*errors).log()
    return -float((steps - steps.mean()) @ (error - error.mean()) / (steps - steps.mean()).square().sum())


def targets(process: Process) -> dict[str, MixtureDenoiser]:
    means, stds = (
        torch.stack([f64(0.5, -1, 0.2), f64(-0.6, 0.4, 0.8)]),
        torch.stack([f64(0.3, 0.6, 0.9), f64(0.5, 0.5, 0.2)]),
    )
    return {
        "gaussian": GaussianDenoiser(process, means[0], stds[0]),
        "mixture": MixtureDenoiser(process, means, stds, f64(1, 2)),
    }


def start(denoiser: Denoiser) -> Tensor:
    t = grid(denoiser.process, 1)[0]
    alpha, sigma = denoiser.process.alpha(t), denoiser.process.sigma(t)
    eps = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return 0.3 * alpha + alpha.hypot(sigma) * eps


@cache
def reference(process_name: str, target: str) -> tuple[Tensor, Tensor, MixtureDenoiser]:
    """(x at the start of the grid, where the exact flow carries it, the denoiser)."""
    process = process_of(process_name)
    denoiser = targets(process)[target]
    x = start(denoiser)
    if isinstance(denoiser, GaussianDenoiser):
        ends = grid(process, 1)
        return x, denoiser.flow_map(x, ends[0], ends[1]), denoiser
    return x, sample(denoiser, Heun(), grid(process, 400), x, SampleNoise(0, range(len(x)))), denoiser


def test_every_sampler_is_in_a_table() -> None:
    missing = set(SAMPLERS) - set(ORDERS) - set(STOCHASTIC)
    assert not missing, f"add {sorted(missing)} to ORDERS (a solver of the ODE) or to STOCHASTIC in {__name__}"
    assert not (set(ORDERS) | set(STOCHASTIC)) - set(SAMPLERS)


@pytest.mark.parametrize("target", ["gaussian", "mixture"])
@pytest.mark.parametrize("sampler", ORDERS)
@pytest.mark.parametrize("process", PROCESSES)
def test_order(process: str, sampler: str, target: str) -> None:
    x, exact, denoiser = reference(process, target)
    rng = SampleNoise(0, range(len(x)))
    errors = [
        float((sample(denoiser, SAMPLERS[sampler](), grid(denoiser.process, k), x, rng) - exact).abs().max())
        for k in STEPS
    ]
    assert rng.draws == 0, "not a solver of the ODE: it draws noise"
    assert slope(errors) == pytest.approx(ORDERS[sampler], abs=0.2)
    assert errors[-1] < {1: 0.1, 2: 0.01}[ORDERS[sampler]]


@pytest.mark.parametrize("process", PROCESSES)
def test_the_two_references_agree(process: str) -> None:
    x, exact, denoiser = reference(process, "gaussian")
    fine = sample(denoiser, Heun(), grid(denoiser.process, 400), x, SampleNoise(0, range(len(x))))
    torch.testing.assert_close(fine, exact, rtol=0, atol=2e-4)


# ---- stochastic samplers -------------------------------------------------------------------------------------------------------


class Impulses(SampleNoise):
    """All draws are zero, but for the one of row i at draw i.

    On Gaussian data every sampler is affine in its noise, so these runs give the moments of its samples exactly: row 0 (draw 0
    does not happen) is the mean, and the squared differences from it add up to the variance.
    """

    def normal_like(self, x: Tensor) -> Tensor:
        self.draws += 1
        impulse = torch.zeros_like(x)
        impulse[self.draws] = 1
        return impulse


class HalfLearned(Denoiser):
    """The exact belief, with a learned variance half-way between the two extremes."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser

    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Prediction:
        return replace(self.denoiser(x_t, t), variance_fraction=torch.full_like(x_t, 0.5))


def moments(process: Process, sampler: Sampler, steps: int) -> tuple[float, float]:
    """Errors of the mean and of the standard deviation of the samples, in units of the data's standard deviation."""
    mean, std = 0.7, 0.4
    times = grid(process, steps)
    denoiser = HalfLearned(GaussianDenoiser(process, f64(mean), f64(std)))
    rng = Impulses(0, range(steps + 2))
    t = times[0]
    x = process.alpha(t) * mean + (process.alpha(t) * std).hypot(process.sigma(t)) * rng.normal_like(
        torch.zeros(steps + 2, 1)
    )
    x = sample(denoiser, sampler, times, x.double(), rng)
    assert rng.draws > 1, "draws no noise"
    s = times[-1]
    true_mean, true_std = process.alpha(s) * mean, (process.alpha(s) * std).hypot(process.sigma(s))
    return float(abs(x[0] - true_mean) / std), float(abs((x - x[0]).square().sum().sqrt() - true_std) / std)


CASES = [(name, i) for name, variants in STOCHASTIC.items() for i in range(len(variants))]


@pytest.mark.parametrize(("sampler", "variant"), CASES)
@pytest.mark.parametrize("process", PROCESSES)
def test_moments(process: str, sampler: str, variant: int) -> None:
    settings = STOCHASTIC[sampler][variant]
    coarse, fine = (moments(process_of(process), SAMPLERS[sampler](**settings(n)), n) for n in (24, 72))
    for error_coarse, error_fine in zip(coarse, fine):
        assert error_fine < 0.05
        assert error_fine < 0.45 * error_coarse + 1e-8  # first order gives 1/3
