"""Langevin dynamics: its stationary distribution with the step's own error, annealing against the exact mixture, other processes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from numeric import Fast, f64, scalar
from torch import Tensor

from unstir.denoiser import GaussianDenoiser, MixtureDenoiser
from unstir.ladder import langevin_step_size, left_over
from unstir.process import Process
from unstir.processes import EDM, PROCESSES, VP, GeometricLadder, RectifiedFlow
from unstir.samplers.grids import Karras, Uniform
from unstir.samplers.langevin import AnnealedLangevin, langevin, langevin_step
from unstir.sampling import sample, trajectory


@pytest.mark.parametrize("name", PROCESSES)
def test_one_step_is_the_formula_with_the_score(name: str) -> None:
    process = PROCESSES[name]()
    exact = GaussianDenoiser(process, f64(0.5, -1), f64(0.3, 0.9))
    t = scalar(0.6 * process.t_max)
    x, z = f64(0.3, -1.2).reshape(1, 2), f64(0.7, -0.1).reshape(1, 2)
    alpha, sigma = process.alpha(t), process.sigma(t)
    score = -(x - alpha * exact.means[0]) / ((alpha * exact.stds[0]) ** 2 + sigma**2)
    step = 0.3 * sigma**2
    torch.testing.assert_close(
        langevin_step(exact(x, t), 0.3, z), x + step * score + (2 * step).sqrt() * z, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("step_size", [0.02, 0.4])
def test_stationary_distribution(step_size: float) -> None:
    """Mean and standard deviation within their error bars; the unadjusted step's bias is known, and is seen."""
    process, t, n = VP(), scalar(0.5), 4000
    exact = GaussianDenoiser(process, f64(0.8), f64(0.6))
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    mean, variance = alpha * 0.8, (alpha * 0.6) ** 2 + sigma**2
    x = torch.full((n, 1), 5.0, dtype=torch.float64)  # far away
    x = langevin(exact, x, t, step_size=step_size, repeats=round(8 / step_size), rng=Fast(0, n))
    biased = variance / (1 - step_size * sigma**2 / (2 * variance))
    std = math.sqrt(biased)
    assert float(x.mean()) == pytest.approx(mean + (5 - mean) * math.exp(-8), abs=4 * std / math.sqrt(n) + 0.01)
    assert float(x.std()) == pytest.approx(std, abs=4 * std / math.sqrt(2 * n))
    if step_size > 0.1:  # the bias is larger than the error bar, so it was this distribution and not the exact one
        assert abs(std - math.sqrt(variance)) > 4 * std / math.sqrt(2 * n)


def variance_after(sampler: AnnealedLangevin, process: Process, times: Tensor, std: float) -> tuple[float, float]:
    """(share that is left of where the chain starts, variance it ends with), for data of mean 0: the recursion, step by step."""
    share, variance = 1.0, 0.0
    for t, s in itertools.pairwise(times):
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        total = (alpha * std) ** 2 + sigma**2
        h = sampler.step_size * sigma**2
        for _ in range(sampler.repeats):
            share, variance = share * (1 - h / total), variance * (1 - h / total) ** 2 + 2 * h
        scale = float(process.alpha(s)) / alpha
        if float(process.sigma(s)) == 0 and sampler.denoise:
            scale = alpha * std**2 / total
        share, variance = share * scale, variance * scale**2
    return share, variance


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("process", [GeometricLadder(6, 0.05, 3.0), VP(), EDM()])
def test_annealed_by_the_recursion_of_moments(process: Process, denoise: bool) -> None:
    sampler, n, std = AnnealedLangevin(repeats=3, step_size=0.15, denoise=denoise), 6000, 0.4
    times = (Karras(sigma_max=3.0) if isinstance(process, EDM) else Uniform()).times(process, 6)
    exact = GaussianDenoiser(process, f64(0.0), f64(std))
    rng = Fast(1, n)
    share, variance = variance_after(sampler, process, times, std)
    far = sample(exact, sampler, times, torch.full((n, 1), 40.0, dtype=torch.float64), rng)
    spread = math.sqrt(variance)
    assert float(far.mean()) == pytest.approx(40 * share, abs=4 * spread / math.sqrt(n))
    assert float(far.std()) == pytest.approx(spread, abs=4 * spread / math.sqrt(2 * n))


def test_annealing_finds_both_modes_in_their_proportion() -> None:
    process, n = GeometricLadder(30, 0.02, 8.0), 3000
    means, stds = f64(-3, 3).reshape(2, 1), f64(0.3).reshape(1, 1)
    exact = MixtureDenoiser(process, means, stds, f64(1, 3))
    rng = Fast(2, n)
    times = Uniform().times(process, 30)
    x = process.prior_sample(rng.normal_like(torch.zeros(n, 1, dtype=torch.float64)))
    x = sample(exact, AnnealedLangevin(repeats=60, step_size=0.05), times, x, rng)
    right = x > 0
    assert float(right.double().mean()) == pytest.approx(0.75, abs=0.04)
    for mode, mean in ((x[right], 3.0), (x[~right], -3.0)):
        assert float(mode.mean()) == pytest.approx(mean, abs=4 * 0.3 / math.sqrt(len(mode)))
        assert float(mode.std()) == pytest.approx(0.3, rel=0.08)
    # What annealing is for: the lowest level alone, started in one mode, never finds the other.
    stuck = langevin(
        exact, torch.full((200, 1), 3.0).double(), times[-2], step_size=0.05, repeats=600, rng=Fast(3, 200)
    )
    assert bool((stuck > 0).all())


def test_the_default_step_is_the_rules() -> None:
    process = GeometricLadder(8, 0.1, 2.0)
    gamma = 20 ** (1 / 7)
    exact = GaussianDenoiser(process, f64(0.0), f64(1.0))
    times = Uniform().times(process, 8)
    x = process.prior_sample(Fast(0, 5).normal_like(torch.zeros(5, 1).double()))
    explicit = AnnealedLangevin(repeats=4, step_size=langevin_step_size(gamma, 4))
    torch.testing.assert_close(
        sample(exact, AnnealedLangevin(repeats=4), times, x, Fast(7, 5)),
        sample(exact, explicit, times, x, Fast(7, 5)),
        rtol=1e-9,
        atol=1e-9,
    )


def test_the_rule_keeps_the_chain_at_its_level() -> None:
    """Data in one point, noise carried down the ladder: the spread stays what one level leaves, times after times."""
    process, n = GeometricLadder(40, 0.05, 5.0), 8000
    gamma = 100 ** (1 / 39)
    exact = GaussianDenoiser(process, f64(0.0), f64(0.0))
    rng = Fast(5, n)
    x = process.prior_sample(rng.normal_like(torch.zeros(n, 1, dtype=torch.float64)))
    e = langevin_step_size(gamma, 5)
    expected = 1.0
    for step in trajectory(exact, AnnealedLangevin(denoise=False), Uniform().times(process, 40), x, rng):
        start = expected if step.index == 0 else expected * gamma**2
        expected = (1 - e) ** 10 * start + float(left_over(e, 0.0, 5))
        ratio = float(step.x_s.std() / process.sigma(step.t))
        assert ratio == pytest.approx(math.sqrt(expected), rel=4 / math.sqrt(2 * n))
    assert expected < 1.2


def test_evaluations_are_counted() -> None:
    process = GeometricLadder(3, 0.1, 1.0)
    exact = GaussianDenoiser(process, f64(0.0), f64(1.0))
    steps = list(
        trajectory(exact, AnnealedLangevin(7), Uniform().times(process, 3), torch.zeros(2, 1).double(), Fast(0, 2))
    )
    assert [step.evaluations for step in steps] == [7, 7, 8]  # the last also asks for the believed data


def test_pure_noise_is_handed_on() -> None:
    # alpha = 0 leaves no scale to hand x on in: DDIM's step does it, and the levels below mend what it leaves.
    exact = GaussianDenoiser(RectifiedFlow(), f64(0.5), f64(0.2))
    n = 3000
    rng = Fast(0, n)
    x = rng.normal_like(torch.zeros(n, 1, dtype=torch.float64))
    times = torch.cat([Uniform().times(RectifiedFlow(), 20)[:-1], f64(0.03, 0.02, 0.01, 0)])
    x = sample(exact, AnnealedLangevin(repeats=100, step_size=0.1), times, x, rng)
    assert float(x.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(x.std()) == pytest.approx(0.2, rel=0.1)
