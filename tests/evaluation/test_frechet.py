"""Fréchet distance against closed forms, torchmetrics, an SVD, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.evaluation.frechet import Frechet, frechet_distance, frechet_to, jackknife, square_root
from unstir.evaluation.metric import Embedded
from unstir.evaluation.moments import Moments


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(mean: Tensor, covariance: Tensor, count: int = 1000) -> Moments:
    return Moments(count, mean, covariance * (count - 1))


def rotation(dimension: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(dimension, dimension, seed=seed)).Q


@pytest.mark.parametrize("seed", range(4))
def test_gaussians_with_common_axes_have_a_closed_form(seed: int) -> None:
    """sum of (m_1 - m_2)² + (s_1 - s_2)², in any orthonormal basis."""
    m, s = normal(2, 12, seed=seed), normal(2, 12, seed=seed + 100).abs() + 0.1
    q = rotation(12, seed) if seed else torch.eye(12, dtype=torch.float64)
    a, b = (gaussian(q @ m[i], q @ torch.diag(s[i] ** 2) @ q.mT) for i in range(2))
    exact = float((m[0] - m[1]).square().sum() + (s[0] - s[1]).square().sum())
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-12)


def test_general_gaussians_in_the_plane() -> None:
    """For 2 x 2 matrices tr (C_1 C_2)^½ = sqrt(tr(C_1 C_2) + 2 sqrt(det C_1 det C_2))."""
    for seed in range(10):
        a, b = (x @ x.mT + 0.1 * torch.eye(2, dtype=torch.float64) for x in normal(2, 2, 2, seed=seed))
        cross = torch.sqrt((a @ b).trace() + 2 * torch.sqrt(torch.linalg.det(a) * torch.linalg.det(b)))
        exact = float(a.trace() + b.trace() - 2 * cross)
        zero = torch.zeros(2, dtype=torch.float64)
        assert frechet_distance(gaussian(zero, a), gaussian(zero, b)) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(("n", "m", "dimension"), [(500, 400, 16), (300, 300, 100)])
def test_equals_torchmetrics(n: int, m: int, dimension: int) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Identity(nn.Module):
        num_features = dimension

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    x, y = normal(n, dimension), normal(m, dimension, seed=1) * torch.linspace(0.5, 2, dimension) + 0.2
    theirs = FrechetInceptionDistance(Identity(), input_img_size=(1, 1, dimension), normalize=True)
    theirs.set_dtype(torch.float64)
    theirs.update(y[:, None, None], real=True)
    theirs.update(x[:, None, None], real=False)
    ours = frechet_distance(Moments.of(x), Moments.of(y))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-9)


def test_rank_deficient_covariances_are_exact() -> None:
    """Fewer vectors than dimensions: tr (C_1 C_2)^½ is the sum of the singular values of X Yᵀ / sqrt((n - 1)(m - 1)), X and Y
    centred, which needs no root of a rounding error."""
    x, y = normal(20, 200), 3 * normal(30, 200, seed=1) + 1
    a, b = x - x.mean(0), y - y.mean(0)
    cross = torch.linalg.svdvals(a @ b.mT).sum() / np.sqrt(19 * 29)
    exact = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() / 19 + b.square().sum() / 29 - 2 * cross
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(float(exact), rel=1e-12)
    assert square_root(Moments.of(x).covariance).shape == (200, 19)


def test_points_without_spread() -> None:
    a, b = Moments.of(torch.zeros(5, 3)), Moments.of(torch.full((5, 3), 2.0))
    assert frechet_distance(a, b) == 12
    assert frechet_distance(a, a) == 0


@given(st.integers(0, 2**31), st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_invariances(seed: int, scale: float) -> None:
    x, y = normal(40, 6, seed=seed), 2 * normal(50, 6, seed=seed + 1)
    d = frechet_distance(Moments.of(x), Moments.of(y))
    close = pytest.approx(d, rel=1e-9)
    assert frechet_distance(Moments.of(y), Moments.of(x)) == close  # symmetric
    assert frechet_distance(Moments.of(x + 7), Moments.of(y + 7)) == close
    q = rotation(6, seed)
    assert frechet_distance(Moments.of(x @ q), Moments.of(y @ q)) == close
    assert frechet_distance(Moments.of(scale * x), Moments.of(scale * y)) == pytest.approx(scale**2 * d, rel=1e-9)
    assert frechet_distance(Moments.of(x), Moments.of(x.flip(0))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_error_is_the_spread_over_draws(shift: float) -> None:
    """Over 200 draws of the samples: the quoted error's root mean square is the distances' standard deviation, not much less, not 1.4 times more."""
    target = gaussian(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    distance = frechet_to(target)
    values, errors = [], []
    for seed in range(200):
        embedded = Embedded.of(normal(300, 4, seed=seed) + shift, blocks=10)
        values.append(distance(embedded.moments))
        errors.append(jackknife(embedded.blocks, distance))
    ratio = np.sqrt(np.mean(np.square(errors))) / np.std(values)
    # At distance 0 the statistic is quadratic in what was drawn, where a jackknife overstates by up to sqrt(2).
    assert 0.85 < ratio < (1.2 if shift else 1.7), ratio


def test_jackknife_of_a_mean_is_the_textbook_error() -> None:
    x = normal(60, 1)
    blocks = [Moments.of(row[None]) for row in x]
    error = jackknife(blocks, lambda m: float(m.mean))
    assert error == pytest.approx(float(x.std() / np.sqrt(60)), rel=1e-12)
    assert jackknife(blocks[:1], lambda m: 0.0) is None


def test_too_few_samples_are_refused() -> None:
    one, many = Embedded.of(torch.zeros(1, 2)), Embedded.of(torch.randn(9, 2))
    with pytest.raises(UserError, match="at least 2 samples, and there are 1"):
        Frechet().compute(one, many)
