"""The measured order of every sampler under every process, and what the order buys at a few evaluations. tests/test_orders.py asserts it.

    python benchmarks/orders.py [SAMPLER ...]

Solvers of the ODE: the slope of the largest error against the number of steps, on a mixture of Gaussians, whose exact flow is integrated
to ten digits. Multistep solvers are started with short steps, because their first one is of first order, and its error would hide
the method's. Samplers that draw noise: the slope of the error of the samples' mean and standard deviation on Gaussian data (weak order),
which are computed, not estimated.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from report import heading, table
from unstir.denoiser import Denoiser, GaussianDenoiser, MixtureDenoiser
from unstir.prediction import Prediction
from unstir.process import Process
from unstir.processes import EDM, PROCESSES
from unstir.samplers import DEIS, LMS, SAMPLERS, UniPC
from unstir.sampling import SampleNoise, Sampler, sample

HIGH, LOW = 10.0, 0.05
"""Noise levels sigma / alpha between which orders are measured (HIGH, or what the process has)."""
HALVINGS = 9
"""Of the first step, in a grid that starts a multistep solver."""
STEPS = (20, 40, 80, 160)
EVALUATIONS = (6, 12, 24, 48)

OTHERWISE = ("rk45", "annealed_langevin", "pc")
"""Converge in something else than the number of steps: a tolerance, Langevin steps. tests/samplers measures them."""
ROWS: dict[str, Sampler] = {name: kind() for name, kind in SAMPLERS.items() if name not in OTHERWISE} | {
    "unipc, order 1": UniPC(order=1),
    "unipc, order 3": UniPC(order=3),
    "unipc, bh1": UniPC(variant="bh1"),
    "unipc, no corrector": UniPC(corrector=False),
    "deis, order 2": DEIS(order=2),
    "deis, in rho": DEIS(variable="rho"),
    "deis, in time": DEIS(variable="time"),
    "lms, order 2": LMS(order=2),
}


def f64(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@cache
def process_of(name: str) -> Process:
    return PROCESSES[name]()


def highest(process: Process) -> float:
    end = f64(process.t_max)[0]
    return min(float(process.sigma(end) / process.alpha(end)), HIGH)


@cache
def grid(process: Process, steps: int, warm: bool = False) -> Tensor:
    """Equal steps of log-SNR; warm: the first is cut in half again and again, so that a multistep method starts exactly."""
    levels = torch.linspace(math.log(highest(process)), math.log(LOW), steps + 1, dtype=torch.float64)
    if warm:
        cuts = 2.0 ** torch.arange(-HALVINGS, 0, dtype=torch.float64)
        levels = torch.cat([levels[:1], levels[0] + cuts * (levels[1] - levels[0]), levels[1:]])
    return process.t_at_noise_ratio(levels.exp())


def slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The order of convergence: minus the slope of log error on log steps."""
    x, y = f64(*steps).log(), f64(*errors).log()
    return -float((x - x.mean()) @ (y - y.mean()) / (x - x.mean()).square().sum())


# ---- solvers of the ODE --------------------------------------------------------------------------------------------------------


def targets(process: Process) -> dict[str, MixtureDenoiser]:
    means = torch.stack([f64(0.5, -1, 0.2), f64(-0.6, 0.4, 0.8)])
    stds = torch.stack([f64(0.3, 0.6, 0.9), f64(0.5, 0.5, 0.2)])
    return {
        "gaussian": GaussianDenoiser(process, means[0], stds[0]),
        "mixture": MixtureDenoiser(process, means, stds, f64(1, 2)),
    }


@cache
def exact_flow(target: str, high: float) -> tuple[Tensor, Tensor]:
    """(x at the noise level ``high``, where the flow carries it at LOW), both of EDM's process.

    By Runge and Kutta's rule for dx / dlog sigma = sigma eps. Every process has this flow, in x / alpha as a function of sigma / alpha.
    """
    denoiser = targets(EDM(sigma_max=high))[target]

    def velocity(x: Tensor, level: Tensor) -> Tensor:
        return level.exp() * denoiser(x, level.exp()).eps

    noise = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = x = 0.3 + math.hypot(1, high) * noise
    for a, b in itertools.pairwise(torch.linspace(math.log(high), math.log(LOW), 401, dtype=torch.float64)):
        h, middle = b - a, (a + b) / 2
        k_1 = velocity(x, a)
        k_2 = velocity(x + h / 2 * k_1, middle)
        k_3 = velocity(x + h / 2 * k_2, middle)
        k_4 = velocity(x + h * k_3, b)
        x = x + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
    return start, x


def flow_error(
    process: Process, sampler: Sampler, times: Tensor, target: str = "mixture", rng: SampleNoise | None = None
) -> float:
    """The largest error of x / alpha after a walk along the times, a ``grid``."""
    start, end = exact_flow(target, highest(process))
    denoiser = targets(process)[target]
    rng = rng or SampleNoise(0, range(len(start)))
    x = sample(denoiser, sampler, times, process.alpha(times[0]) * start, rng)
    return float((x / process.alpha(times[-1]) - end).abs().max())


# ---- samplers that draw noise --------------------------------------------------------------------------------------------------


class Silence(SampleNoise):
    """All draws are zero."""

    def normal_like(self, x: Tensor) -> Tensor:
        self.draws += 1
        return torch.zeros_like(x)


class Impulses(Silence):
    """All draws are zero, but for the one of row i at draw i.

    On Gaussian data every sampler is affine in its noise, so these runs give the moments of its samples exactly: row 0 (draw 0
    does not happen) is the mean, and the squared differences from it add up to the variance.
    """

    def normal_like(self, x: Tensor) -> Tensor:
        impulse = super().normal_like(x)
        impulse[self.draws] = 1
        return impulse


def draws(process: Process, sampler: Sampler, steps: int) -> int:
    """How often a sampler draws noise in a run."""
    silence = Silence(0, [0])
    sample(targets(process)["gaussian"], sampler, grid(process, steps), f64(0, 0, 0).unsqueeze(0), silence)
    return silence.draws


def moments(process: Process, sampler: Sampler, steps: int, wrap: type[Denoiser] | None = None) -> tuple[float, float]:
    """Errors of the mean and of the standard deviation of the samples, in units of the data's standard deviation.

    Args:
        wrap: a Denoiser around the exact one.
    """
    mean, std = 0.7, 0.4
    times = grid(process, steps)
    denoiser: Denoiser = GaussianDenoiser(process, f64(mean), f64(std))
    denoiser = denoiser if wrap is None else wrap(denoiser)  # type: ignore[arg-type]
    rows = 4 * steps + 2  # for up to four draws a step; rows without an impulse are as row 0, and add nothing
    rng = Impulses(0, range(rows))
    t, s = times[0], times[-1]
    first = rng.normal_like(torch.zeros(rows, 1, dtype=torch.float64))
    x = process.alpha(t) * mean + (process.alpha(t) * std).hypot(process.sigma(t)) * first
    x = sample(denoiser, sampler, times, x, rng)
    assert rng.draws > 1, "draws no noise"
    true_mean, true_std = process.alpha(s) * mean, (process.alpha(s) * std).hypot(process.sigma(s))
    return float(abs(x[0] - true_mean) / std), float(abs((x - x[0]).square().sum().sqrt() - true_std) / std)


# ---- the tables ----------------------------------------------------------------------------------------------------------------


def order(process: Process, sampler: Sampler) -> tuple[float, bool]:
    """(measured order, whether the sampler draws noise)."""
    if draws(process, sampler, 3):
        return slope(STEPS, [math.hypot(*moments(process, sampler, k)) for k in STEPS]), True
    return slope(STEPS, [flow_error(process, sampler, grid(process, k, warm=True)) for k in STEPS]), False


class Counting(Denoiser):
    """Counts how often it is asked."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.count = 0

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        self.count += 1
        return self.denoiser(x_t, t, **cond)


def evaluations(sampler: Sampler) -> int:
    """Of the denoiser, in one step that does not end at the data."""
    counting = Counting(targets(process_of("vp"))["gaussian"])
    sample(counting, sampler, grid(counting.process, 1), f64(0, 0, 0).unsqueeze(0), Silence(0, [0]))
    return counting.count


def orders(names: Sequence[str], processes: Sequence[str]) -> str:
    """The table of orders: samplers down, processes across."""
    rows = []
    for name in names:
        found = [order(process_of(process), ROWS[name]) for process in processes]
        kind = "SDE" if found[0][1] else "ODE"
        rows.append([name, kind, evaluations(ROWS[name]), *(f"{value:.2f}" for value, _ in found)])
    return table(["sampler", "solves", "evaluations", *processes], rows)


def errors(names: Sequence[str]) -> str:
    """The largest error of solvers of the ODE with a number of evaluations, in equal steps of log-SNR."""
    process, rows = process_of("vp"), []
    for name in names:
        if draws(process, ROWS[name], 3):
            continue
        per_step = evaluations(ROWS[name])
        found = [flow_error(process, ROWS[name], grid(process, n // per_step)) for n in EVALUATIONS]
        rows.append([name, *(f"{error:.1e}" for error in found)])
    return table(["sampler", *(f"{n} evaluations" for n in EVALUATIONS)], rows)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samplers", nargs="*", metavar="SAMPLER", help=f"rows; default all of {', '.join(ROWS)}")
    names = parser.parse_args().samplers or list(ROWS)
    print(heading("Measured order of every sampler under every process"))
    print(orders(names, list(PROCESSES)))
    print(f"\n{', '.join(OTHERWISE)} converge in something else than the number of steps, and are not in the table.")
    print(heading("Largest error of solvers of the ODE"))
    print(errors(names))


if __name__ == "__main__":
    main()
