"""Pairs of neighbouring times: the papers' schedules and distributions, under every process."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from numeric import f64, scalar

from unstir.objectives import PAIRS, KarrasPairs, LogNormal, LogNormalPairs, Pairs, ShrinkingPairs, UniformTimes
from unstir.objectives.discretization import GROWTHS, MOST_NOISE, doubling, ends, noise_ratio, square_root
from unstir.papers import consistency
from unstir.processes import EDM, PROCESSES, CosineVP, RectifiedFlow
from unstir.samplers.grids import Karras

U = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("process", PROCESSES)
def test_times_are_a_pair_under_every_process(process: str, name: str) -> None:
    here, pairs = PROCESSES[process](), PAIRS[name]()
    low, high = ends(here)
    refinements, gaps = [], []
    for fraction in (0.0, 0.3, 0.7, 1.0):
        t, s = pairs.pair(here, U, fraction)
        assert t.dtype == s.dtype == torch.float64
        assert bool(((s < t) & (s >= 0)).all())
        assert bool(((t >= low - 1e-12) & (t <= high + 1e-12)).all())
        assert bool(((s == 0) | (s >= low)).all()), "between the data and the process's lowest time nobody is asked"
        assert bool((t.diff() >= 0).all()), "the quantile function rises, or the draws could not be stratified"
        refinements.append(pairs.refinement(fraction))
        gaps.append(float((noise_ratio(here, t).log1p() - noise_ratio(here, s).log1p()).mean()))
    assert refinements[0] == 1
    assert refinements == sorted(refinements)
    assert refinements[-1] > 50
    assert gaps == sorted(gaps, reverse=True)
    if process != "betas":  # whose first of four whole steps is as far from the data as the others from each other
        assert gaps[-1] < 0.25 * gaps[0]


@pytest.mark.parametrize("process", PROCESSES)
def test_the_highest_time(process: str) -> None:
    here = PROCESSES[process]()
    t = scalar(ends(here)[1])
    assert float(noise_ratio(here, t)) <= MOST_NOISE * (1 + 1e-9)
    assert float(t) == here.t_max or float(noise_ratio(here, t)) == pytest.approx(MOST_NOISE)
    if isinstance(here, (RectifiedFlow, CosineVP)):  # which go on to noise of which nothing can be learnt
        assert float(t) < here.t_max


# ---- how many levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("s_0", "s_1"), [(2, 150), (10, 1280), (18, 18), (3, 20)])
def test_the_schedules_are_the_papers(s_0: int, s_1: int) -> None:
    K = 960
    for k in range(0, K, 7):
        assert square_root(k / K, s_0, s_1) == consistency.N_of(k, K, s_0, s_1)
        if math.log2(s_1 // s_0).is_integer():  # else K / K' is no whole number, and K' is rounded down
            assert doubling(k / K, s_0, s_1) == consistency.N_improved(k, K, s_0, s_1)
    assert [doubling(f, 10, 1280) for f in (0, 0.12, 0.13, 0.5, 0.99, 1)] == [11, 11, 21, 161, 1281, 1281]
    assert [GROWTHS["constant"](f, 4, 18) for f in (0, 0.5, 1)] == [18, 18, 18]


def test_levels_are_the_papers_but_for_the_lowest() -> None:
    t, s = KarrasPairs(last=18, growth="constant").pair(EDM(), (torch.arange(17) + 0.5).double() / 17, 0.2)
    levels = consistency.time_steps(18)
    torch.testing.assert_close(t, levels[1:])
    torch.testing.assert_close(s, torch.cat([f64(0), levels[1:-1]]))
    torch.testing.assert_close(t.flip(0), Karras().times(EDM(), 18)[:-2])  # and those of the grid that samplers take


def test_karras_pairs_are_equally_often() -> None:
    t, _ = KarrasPairs(last=6, first=6, growth="constant").pair(EDM(), U, 0.0)
    _, counts = torch.unique(t, return_counts=True)
    assert counts.tolist() == [800] * 5


def test_log_normal_pairs_are_the_papers_probabilities() -> None:
    N = 12
    pairs = LogNormalPairs(first=N, last=N, growth="constant")
    t, _ = pairs.pair(EDM(), U, 0.0)
    found = f64(*[float((t == level).double().mean()) for level in torch.unique(t)])
    sigma = consistency.time_steps(N)
    normal = torch.distributions.Normal(scalar(-1.1), scalar(2.0))
    mass = normal.cdf(sigma[1:].log()) - normal.cdf(sigma[:-1].log())
    torch.testing.assert_close(found, mass / mass.sum(), rtol=0, atol=1 / 4000)


# ---- easy consistency tuning ---------------------------------------------------------------------------------------------------


def test_shrinking_pairs_are_the_papers_ratio() -> None:
    t, s = ShrinkingPairs(q=2.0, stages=8).pair(EDM(), U, 0.4)  # a = 1 + floor(3.2) = 4
    torch.testing.assert_close(t, LogNormal(-1.1, 2.0).quantile(EDM(), U).clamp(0.002, 80))
    n = 1 + 8 / (1 + torch.exp(t))
    r = (t * (1 - n / 2**4)).clamp(min=0)
    torch.testing.assert_close(s, torch.where(r < 0.002, 0, r))
    # The first stage's lower time is the data wherever the data can be seen.
    t, s = ShrinkingPairs(q=2.0).pair(EDM(), U, 0.0)
    assert bool(((s == 0) == (t < math.log(7) + 0.002)).all())  # 8 sigmoid(-t) > 1, and what is below sigma_min


def test_stages() -> None:
    pairs = ShrinkingPairs(q=4.0, stages=4)
    assert [pairs.stage(f) for f in (0, 0.24, 0.25, 0.74, 0.75, 1.0)] == [1, 1, 2, 3, 4, 4]
    assert [pairs.refinement(f) for f in (0, 0.25, 1.0)] == [1, 4, 64]
    one, last = ShrinkingPairs(q=256.0, stages=1), ShrinkingPairs(q=2.0, stages=8)
    for ours, theirs in zip(one.pair(EDM(), U, 0.1), last.pair(EDM(), U, 0.99), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_any_times_may_be_the_upper_ones() -> None:
    t, _ = ShrinkingPairs(times=UniformTimes()).pair(RectifiedFlow(), U, 1.0)
    torch.testing.assert_close(t, U.clamp(max=80 / 81).clamp(min=0.002 / 1.002))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (KarrasPairs, {"first": 1}, "2 <= first <= last"),
        (LogNormalPairs, {"first": 2000}, "2 <= first <= last"),
        (ShrinkingPairs, {"stages": 0}, "stages at least 1"),
    ],
)
def test_what_they_refuse(kind: type[Pairs], settings: dict[str, Any], message: str) -> None:
    from unstir.errors import UserError

    with pytest.raises(UserError, match=message):
        kind(**settings)
