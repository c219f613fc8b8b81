"""Distributions of training times, each against a known one, and their stratification."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unstir.denoiser import NetDenoiser
from unstir.objectives import TIMES, DenoisingObjective, LogitNormal, LogNormal, UniformTimes
from unstir.processes import EDM, PROCESSES, VP, LinearVP, RectifiedFlow
from unstir.sampling import SampleNoise

U = torch.linspace(0, 1, 1002, dtype=torch.float64)[1:-1]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("process", PROCESSES)
def test_quantiles_grow_within_the_process(process: str, times: str) -> None:
    p = PROCESSES[process]()
    t = TIMES[times]().quantile(
        p, torch.cat([torch.zeros(1).double(), U, torch.tensor([1 - 1e-15], dtype=torch.float64)])
    )
    assert t.dtype == torch.float64
    assert (t.diff() >= 0).all()
    assert t.min() >= p.t_min
    assert t.max() <= p.t_max
    assert torch.equal(t, p.snap(t))
    assert len(set(t.tolist())) > min(p.t_max, 100) * 0.3


def test_uniform() -> None:
    torch.testing.assert_close(UniformTimes().quantile(RectifiedFlow(), U), U)
    t = UniformTimes().quantile(LinearVP(steps=10), (torch.arange(1000).double() + 0.5) / 1000)
    assert torch.bincount(t.long()).tolist() == [0] + [100] * 10  # 1..T, as often each


def test_log_normal_is_that_of_scipy() -> None:
    wide = EDM(sigma_min=1e-6, sigma_max=1e6)
    wanted = stats.lognorm(s=1.2, scale=math.exp(-1.2)).ppf(U.numpy())
    np.testing.assert_allclose(LogNormal().quantile(wide, U).numpy(), wanted, rtol=1e-9)
    # The same noise levels under another process.
    t = LogNormal(mean=0.3, std=0.7).quantile(VP(), U)
    ratio = VP().sigma(t) / VP().alpha(t)
    np.testing.assert_allclose(ratio.numpy(), stats.lognorm(s=0.7, scale=math.exp(0.3)).ppf(U.numpy()), rtol=1e-7)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.8)])
def test_logit_normal_is_that_of_the_paper(mean: float, std: float) -> None:
    # Esser et al. 2024, eq. 19: pi(t) = 1 / (s sqrt(2 pi)) 1 / (t (1 - t)) exp(-(logit(t) - m)² / (2 s²)).
    t = LogitNormal(mean, std).quantile(RectifiedFlow(), U)
    grid = torch.linspace(1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)
    density = (-((grid.logit() - mean) ** 2) / (2 * std**2)).exp() / (std * math.sqrt(2 * math.pi) * grid * (1 - grid))
    cumulative = torch.cumulative_trapezoid(density, grid)
    below = cumulative[(torch.searchsorted(grid, t) - 1).clamp(0, len(cumulative) - 1)]
    torch.testing.assert_close(below, U, rtol=0, atol=1e-4)


def draw(indices: range, total: int | None = None, *, stratified: bool = True) -> torch.Tensor:
    denoiser = NetDenoiser(torch.nn.Identity(), RectifiedFlow())
    rng = SampleNoise(3, indices, total)
    return DenoisingObjective(stratified=stratified).draw_times(denoiser, rng)


def test_stratified_times_cover_every_slice_once() -> None:
    for first in (0, 32, 96):  # successive batches of 32
        assert sorted((draw(range(first, first + 32)) * 32).long().tolist()) == list(range(32))
    loose = (draw(range(32), stratified=False) * 32).long().tolist()
    assert len(set(loose)) < 32
    assert all(0 < (32 * t) % 1 < 1 for t in draw(range(32)).tolist())


def test_stratified_times_of_two_processes_are_those_of_one() -> None:
    whole = draw(range(64, 72))
    assert torch.equal(torch.cat([draw(range(64, 68), 8), draw(range(68, 72), 8)]), whole)


def test_stratified_times_are_uniform_for_every_position() -> None:
    # Sample after sample, position 0 stays in its slice, and fills it.
    first = torch.stack([draw(range(8 * i, 8 * i + 8))[0] for i in range(400)])
    assert stats.kstest(first.numpy() * 8, "uniform").pvalue > 0.001
