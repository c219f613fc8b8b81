"""Every sampler converges, at its order, to the exact answer: the probability flow of a mixture, or the data's moments.

A new process is tested by being in PROCESSES. A new sampler needs a line in ORDERS or in STOCHASTIC below. What measures is
benchmarks/orders.py, which prints all of it as a table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import orders
from orders import ROWS, exact_flow, f64, flow_error, grid, moments, process_of, slope
from unstir.denoiser import Denoiser, GaussianDenoiser
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES
from unstir.samplers import SAMPLERS, DPMpp3M
from unstir.samplers.exponential import Expansion, X0InLogSNR
from unstir.sampling import SampleNoise, sample

# Solvers of the probability-flow ODE, rows of the benchmark's table: name -> order.
ORDERS = {
    "ddim": 1,
    "euler": 1,
    "heun": 2,
    "dpm_solver_1": 1,
    "dpm_solver_2": 2,
    "dpm_solver_3": 3,
    "dpmpp_2s": 2,
    "dpmpp_2m": 2,
    "dpmpp_3m": 3,
    "unipc": 3,
    "unipc, order 1": 2,
    "unipc, order 3": 4,
    "unipc, bh1": 3,
    "unipc, no corrector": 2,
    "deis": 3,
    "deis, order 2": 2,
    "deis, in rho": 3,
    "deis, in time": 3,
    "lms": 4,
    "lms, order 2": 2,
}
# What draws fresh noise: name -> settings for a number of steps, with which it converges to the moments of the data.
STOCHASTIC: dict[str, list[Callable[[int], dict[str, Any]]]] = {
    "ddpm": [lambda n: {"noise": "posterior"}, lambda n: {"noise": "large"}, lambda n: {"noise": "learned"}],
    "ddim": [lambda n: {"eta": 0.5}, lambda n: {"eta": 1.0}],
    "euler": [lambda n: {"churn": 4 / n}],
    "heun": [lambda n: {"churn": 4 / n}, lambda n: {"churn": 8 / n, "churn_from": 0.1, "churn_to": 2.0}],
    "euler_ancestral": [lambda n: {}],
    "dpmpp_2s_ancestral": [lambda n: {}, lambda n: {"eta": 0.5}],
    "dpmpp_2m_sde": [lambda n: {}, lambda n: {"eta": 0.5}],
    "dpmpp_3m_sde": [lambda n: {}, lambda n: {"eta": 0.5}],
    "euler_maruyama": [lambda n: {}],
    "reverse_diffusion": [lambda n: {}],
    "pc": [lambda n: {"adaptive": False, "snr": (0.5 / n) ** 0.5}],
}
# What converges in something else than the number of steps: in its tolerance, and in Langevin steps; or is exact in one step already, with
# a consistency function (see tests/samplers).
ELSEWHERE = {"rk45", "annealed_langevin", "consistency"}


def test_every_sampler_is_in_a_table() -> None:
    missing = set(SAMPLERS) - set(ORDERS) - set(STOCHASTIC) - ELSEWHERE
    assert not missing, f"add {sorted(missing)} to ORDERS (a solver of the ODE) or to STOCHASTIC in {__name__}"
    assert not set(ORDERS) - set(ROWS)
    assert not set(STOCHASTIC) - set(SAMPLERS)


# Variants of a sampler's settings are measured under every process by the benchmark, here under two.
CASES_OF_ORDER = [(process, row) for row in ORDERS for process in (PROCESSES if row in SAMPLERS else ("vp", "linear"))]
STEPS, FINE = (20, 40), (80, 160)


@pytest.mark.parametrize(("process", "row"), CASES_OF_ORDER)
def test_order(process: str, row: str) -> None:
    rng = SampleNoise(0, range(4))
    errors = [
        flow_error(process_of(process), ROWS[row], grid(process_of(process), k, warm=True), rng=rng) for k in STEPS
    ]
    assert rng.draws == 0, "not a solver of the ODE: it draws noise"
    # With so few steps, high orders are not yet what they will be (test_high_orders).
    assert slope(STEPS, errors) == pytest.approx(ORDERS[row], abs={1: 0.1, 2: 0.3, 3: 0.6, 4: 0.8}[ORDERS[row]])
    assert errors[-1] < {1: 0.1, 2: 0.02, 3: 4e-3, 4: 2e-3}[ORDERS[row]]


@pytest.mark.parametrize("row", [row for row, order in ORDERS.items() if order > 2])
def test_high_orders(row: str) -> None:
    errors = [flow_error(EDM(), ROWS[row], grid(EDM(), k, warm=True)) for k in FINE]
    assert slope(FINE, errors) == pytest.approx(ORDERS[row], abs=0.3)


@pytest.mark.parametrize("row", ["ddim", "dpm_solver_3", "dpmpp_3m", "unipc, order 3", "deis", "lms"])
@pytest.mark.parametrize("process", [name for name in PROCESSES if name != "betas"])  # which ends at less noise
def test_the_process_does_not_matter(process: str, row: str) -> None:
    # x / alpha as a function of sigma / alpha is all that these solvers see.
    ours, edm = (flow_error(p, ROWS[row], grid(p, 10)) for p in (process_of(process), EDM()))
    assert ours == pytest.approx(edm, rel=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_reference_is_exact(process: str) -> None:
    ends = grid(process_of(process), 1)
    start, end = exact_flow("gaussian", orders.highest(process_of(process)))
    denoiser = orders.targets(process_of(process))["gaussian"]
    assert isinstance(denoiser, GaussianDenoiser)
    alpha = denoiser.process.alpha(ends)
    torch.testing.assert_close(denoiser.flow_map(alpha[0] * start, ends[0], ends[1]) / alpha[1], end, rtol=0, atol=1e-9)


@dataclass(frozen=True)
class HalfSecondDifference(X0InLogSNR):
    """How the code of DPM-Solver++, k-diffusion and diffusers weighs the second difference of three beliefs."""

    def moments(self, process: Process, t: Tensor, s: Tensor, count: int) -> Tensor:
        return super().moments(process, t, s, count) * (f64(1, 1, 0.5) if count == 3 else 1)


@dataclass(frozen=True)
class Published3M(DPMpp3M):
    def scheme(self) -> tuple[Expansion, int]:
        return HalfSecondDifference(single="bh2"), 3


def test_half_of_the_second_difference_makes_second_order() -> None:
    # Why dpmpp_3m is not what others' code calls by this name.
    errors = [flow_error(EDM(), Published3M(), grid(EDM(), k, warm=True)) for k in FINE]
    assert slope(FINE, errors) == pytest.approx(2, abs=0.1)


# ---- stochastic samplers -------------------------------------------------------------------------------------------------------


class HalfLearned(Denoiser):
    """The exact belief, with a learned variance half-way between the two extremes."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser

    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Prediction:
        return replace(self.denoiser(x_t, t), variance_fraction=torch.full_like(x_t, 0.5))


CASES = [(name, i) for name, variants in STOCHASTIC.items() for i in range(len(variants))]


@pytest.mark.parametrize(("sampler", "variant"), CASES)
@pytest.mark.parametrize("process", PROCESSES)
def test_moments(process: str, sampler: str, variant: int) -> None:
    settings = STOCHASTIC[sampler][variant]
    coarse, fine = (moments(process_of(process), SAMPLERS[sampler](**settings(n)), n, HalfLearned) for n in (24, 72))
    for error_coarse, error_fine in zip(coarse, fine):
        assert error_fine < 0.05
        assert error_fine < 0.45 * error_coarse + 1e-8  # first order gives 1/3


@pytest.mark.parametrize(
    ("stochastic", "solver"),
    [
        ("euler_ancestral", "euler"),
        ("dpmpp_2s_ancestral", "dpmpp_2s"),
        ("dpmpp_2m_sde", "dpmpp_2m"),
        ("dpmpp_3m_sde", "dpmpp_3m"),
    ],
)
@pytest.mark.parametrize("process", PROCESSES)
def test_without_noise_it_is_the_solver_of_the_ode(process: str, stochastic: str, solver: str) -> None:
    denoiser = orders.targets(process_of(process))["mixture"]
    times = torch.cat([grid(denoiser.process, 7), f64(0)])
    x = denoiser.process.prior_sample(SampleNoise(0, range(4)).normal((3,), torch.float64), times[0])
    rng = SampleNoise(1, range(4))
    got, wanted = (
        sample(denoiser, sampler, times, x, rng)
        for sampler in (SAMPLERS[stochastic](eta=0.0), SAMPLERS[solver]())  # type: ignore[call-arg]
    )
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    assert rng.draws == 0


class Coarsened(SampleNoise):
    """The noise of long steps made from that of short ones, so that runs with either follow one path of the SDE (for eta = 1).

    What is drawn over t -> m -> s is exp(-h) sigma_s / sigma_m times what t -> m drew, and what m -> s draws; h of m -> s.
    """

    def __init__(self, fine: Tensor, process: Process, levels: Tensor, stride: int) -> None:
        super().__init__(0, range(fine.shape[1]))
        sigma, lambda_ = process.sigma(levels), process.log_snr(levels) / 2
        std = X0InLogSNR(1.0).std
        self.coarse = []
        for start in range(0, len(fine), stride):
            total = torch.zeros_like(fine[0])
            for i in range(start, start + stride):
                fade = torch.exp(lambda_[i] - lambda_[i + 1]) * sigma[i + 1] / sigma[i]
                total = fade * total + std(process, levels[i], levels[i + 1]) * fine[i]
            self.coarse.append(total / std(process, levels[start], levels[start + stride]))

    def normal_like(self, x: Tensor) -> Tensor:
        self.draws += 1
        return self.coarse[self.draws - 1]


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m_sde", "dpmpp_3m_sde"])
@pytest.mark.parametrize("process", ["vp", "edm"])
def test_strong_order(process: str, name: str) -> None:
    # Path by path they are of first order, whatever the polynomial's degree: it cannot know the noise within the step.
    process_, finest = process_of(process), 512
    levels = grid(process_, finest)
    denoiser = orders.targets(process_)["mixture"]
    fine = torch.randn(finest, 64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = process_.sigma(levels[0]) * torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ends = [
        sample(denoiser, SAMPLERS[name](), levels[::k], x, Coarsened(fine, process_, levels, k)) for k in (1, 8, 16, 32)
    ]
    errors = [float((end - ends[0]).square().mean().sqrt() / process_.alpha(levels[-1])) for end in ends[1:]]
    assert slope([64, 32, 16], errors) == pytest.approx(1, abs=0.25)
    assert errors[0] < 0.05


# ---- the benchmark's tables ----------------------------------------------------------------------------------------------------


def test_tables() -> None:
    assert [orders.evaluations(ROWS[name]) for name in ("ddim", "heun", "dpm_solver_3", "unipc")] == [1, 2, 3, 1]
    lines = orders.errors(["ddim", "dpmpp_2m_sde", "dpm_solver_2"]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["ddim", "dpm_solver_2"]  # those of the ODE
    cells = orders.orders(["dpmpp_2m"], ["vp", "edm"]).splitlines()[2].split("|")
    assert [cell.strip() for cell in cells[1:4]] == ["dpmpp_2m", "ODE", "1"]
    assert [float(cell) for cell in cells[4:-1]] == pytest.approx([2, 2], abs=0.1)
