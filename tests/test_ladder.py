"""NCSNv2's rules: against the paper's own numbers, and against what they promise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.ladder import ladder_levels, ladder_ratio, langevin_step_size, largest_distance, left_over
from unstir.processes import VE, VP, GeometricLadder


def test_largest_distance_by_brute_force() -> None:
    x = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = max(float((a - b).norm()) for a in x for b in x)
    assert largest_distance(x) == pytest.approx(expected, rel=1e-5)
    many = torch.zeros(5000, 1)
    many[0], many[-1] = -3, 4  # the first and the last are always among those that are looked at
    assert largest_distance(many) == pytest.approx(7)
    with pytest.raises(UserError, match="all the same"):
        largest_distance(torch.ones(9, 4))


def test_ratio_solves_its_equation() -> None:
    phi = torch.distributions.Normal(0.0, 1.0).cdf
    for D in (64, 784, 3072, 196_608):
        gamma, root = ladder_ratio(D), math.sqrt(2 * D)
        left = phi(torch.tensor(root * (gamma - 1) + 3 * gamma)) - phi(torch.tensor(root * (gamma - 1) - 3 * gamma))  # type: ignore[no-untyped-call]
        assert float(left) == pytest.approx(0.5, abs=1e-3)
    assert ladder_ratio(3072) > ladder_ratio(12_288) > 1
    assert ladder_ratio(2) == 10  # shells so wide always overlap


def test_ratio_by_what_it_means() -> None:
    # Half of the noise of one level (sigma = 1) has a radius within three deviations of what the next larger level's noise has.
    D, gamma = 784, ladder_ratio(784)
    radius = torch.randn(20_000, D, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    larger = gamma * radius[torch.randperm(20_000, generator=torch.Generator().manual_seed(1))]
    shared = ((radius - larger.mean()).abs() < 3 * larger.std()).double().mean()
    assert float(shared) == pytest.approx(0.5, abs=0.02)


def test_the_papers_ladder_and_step() -> None:
    # CIFAR-10: sigma from 50 to 0.01 in 232 levels, T = 5, epsilon = 6.2e-6 (their ratio is a little smaller than the rule's).
    assert ladder_levels(0.01, 50, 3072) == pytest.approx(232, rel=0.07)
    gamma = 5000 ** (1 / 231)
    assert langevin_step_size(gamma, 5) * 0.01**2 == pytest.approx(6.2e-6, rel=0.03)


def test_left_over_variance_is_that_of_the_chain() -> None:
    # Data in one point, where the score is -x / sigma²: follow the variance step by step.
    for e, gamma, T in ((0.06, 1.04, 5), (0.3, 1.5, 3), (0.9, 4.0, 10)):
        variance = gamma**2
        for _ in range(T):
            variance = (1 - e) ** 2 * variance + 2 * e
        assert float(left_over(e, gamma, T)) == pytest.approx(variance, rel=1e-12)


def test_step_size_is_the_best_there_is() -> None:
    for gamma, T in ((1.01, 1), (1.04, 5), (1.3, 20), (4.0, 5)):
        best = langevin_step_size(gamma, T)
        assert 0 < best < 1
        here = float(left_over(best, gamma, T))
        assert here > 1
        for factor in (0.5, 0.9, 1.1, 1.5):
            if best * factor < 1:
                assert float(left_over(best * factor, gamma, T)) > here
    assert langevin_step_size(1.04, 100) < langevin_step_size(1.04, 5)  # with more steps they may be smaller


def test_processes_are_fitted_to_data() -> None:
    x = torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    distance = largest_distance(x)
    ladder = GeometricLadder(levels=0, sigma_min=0.02, sigma_max=0).fitted(x)
    assert ladder == GeometricLadder(ladder_levels(0.02, distance, 64), 0.02, distance)
    t = torch.arange(2, ladder.levels + 1, dtype=torch.float64)
    ratio: Tensor = ladder.sigma(t) / ladder.sigma(t - 1)
    assert float(ratio[0]) == pytest.approx(ladder_ratio(64), rel=0.05)
    assert GeometricLadder(levels=7, sigma_max=0).fitted(x).levels == 7
    assert VE(sigma_max=0).fitted(x) == VE(sigma_max=distance)
    given = [GeometricLadder(), VE(), VP()]
    assert [process.fitted(x) for process in given] == given
    for process in (GeometricLadder(levels=0), GeometricLadder(sigma_max=0), VE(sigma_max=0)):
        with pytest.raises(ValueError, match="fitted"):
            process.sigma(torch.tensor(1.0, dtype=torch.float64))


def test_training_fits_the_ladder_and_keeps_it(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    import unstir
    from unstir.cli import run

    run(["train", "ncsnv2", "--data", str(tiny_arrays["image"]), "--out", str(tmp_path / "r"), "--training.steps", "1",
         "--training.batch-size", "4", "--sampling.steps", "2", "--network.channels", "8"])  # fmt: skip
    model = unstir.load(tmp_path / "r")
    ladder = model.recipe.process
    assert isinstance(ladder, GeometricLadder)
    pictures = torch.from_numpy(np.load(tiny_arrays["image"])["x"]).flatten(1).float() / 127.5 - 1
    assert ladder.sigma_max == pytest.approx(float(torch.cdist(pictures, pictures).max()), rel=1e-4)
    assert ladder.levels == ladder_levels(0.02, ladder.sigma_max, 360)
    assert model.denoiser.process == ladder
    run(["train", "--resume", str(tmp_path / "r"), "--training.steps", "2"])
    assert unstir.load(tmp_path / "r").recipe.process == ladder
