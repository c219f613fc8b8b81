"""Kernel distance against torchmetrics and a direct sum; unbiased, and its error right, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import unstir.evaluation.kernel as kernel
from unstir.errors import UserError
from unstir.evaluation.kernel import KernelDistance, kernel_distance, kernel_distance_of_subsets
from unstir.evaluation.metric import Embedded


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(x: np.ndarray, y: np.ndarray) -> float:
    """Gretton et al. 2012, eq. 3, term by term."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_equals_the_sum_over_pairs_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(23, 5), 1.5 * normal(31, 5, seed=1) + 0.3
    expected = plain(x.numpy(), y.numpy())
    whole = kernel_distance(x, y)
    assert whole[0] == pytest.approx(expected, rel=1e-11)
    monkeypatch.setattr(kernel, "CHUNK", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-11)


def test_equals_torchmetrics_on_the_same_subsets() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    class Identity(nn.Module):
        num_features = 10

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    x, y = normal(150, 10), normal(120, 10, seed=1) + 0.3
    with pytest.warns(UserWarning, match="large memory footprint"):
        theirs = KernelInceptionDistance(Identity(), subsets=7, subset_size=50)
    theirs.set_dtype(torch.float64)
    theirs.update(y[:, None, None], real=True)
    theirs.update(x[:, None, None], real=False)
    torch.manual_seed(5)
    mean, std = theirs.compute()
    torch.manual_seed(5)  # it draws the real features' rows first, then the others'
    subsets = []
    for _ in range(7):
        real, fake = torch.randperm(120)[:50], torch.randperm(150)[:50]
        subsets.append((fake, real))
    ours = kernel_distance_of_subsets(x, y, subsets)
    assert ours == pytest.approx((float(mean), float(std)), rel=1e-9)


def test_all_samples_as_one_subset_is_the_whole() -> None:
    x, y = normal(40, 4), normal(40, 4, seed=1) + 0.2
    rows = torch.arange(40)
    assert kernel_distance_of_subsets(x, y, [(rows, rows)])[0] == pytest.approx(kernel_distance(x, y)[0], rel=1e-11)


@pytest.mark.parametrize(
    ("n", "m", "shift"), [(60, 60, 0.0), (60, 150, 0.0), (60, 60, 0.15), (60, 150, 0.15), (60, 60, 1.0)]
)
def test_unbiased_and_the_error_is_right(n: int, m: int, shift: float) -> None:
    """Over 400 draws the mean is the true distance within its own error, and the quoted error is the spread."""
    found = [kernel_distance(normal(n, 8, seed=s) + shift, normal(m, 8, seed=10_000 + s)) for s in range(400)]
    values, errors = np.array(found).T
    # |E phi(x) - E phi(y)|² for N(shift, 1) and N(0, 1) from independent pairs: E k = E (x.y/D + 1)³ in closed form.
    true = expected_kernel(8, shift, shift) + expected_kernel(8, 0, 0) - 2 * expected_kernel(8, shift, 0)
    assert abs(values.mean() - true) < 3.5 * values.std() / np.sqrt(len(values))
    assert np.sqrt(np.mean(errors**2)) / values.std() == pytest.approx(1, abs=0.2)


def expected_kernel(dimension: int, a: float, b: float) -> float:
    """E (x.y / D + 1)³ for independent x ~ N(a, 1), y ~ N(b, 1), by Gauss-Hermite quadrature of each coordinate's moments."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    p = np.add.outer(nodes, a * np.ones(1))[:, 0][:, None] * (nodes + b)[None]  # products x_1 y_1
    w = np.outer(weights, weights)
    m1, m2, m3 = ((w * p**k).sum() for k in (1, 2, 3))
    d = dimension  # moments of the sum of d independent products
    s1 = d * m1
    s2 = d * m2 + d * (d - 1) * m1**2
    s3 = d * m3 + 3 * d * (d - 1) * m2 * m1 + d * (d - 1) * (d - 2) * m1**3
    return float(s3 / d**3 + 3 * s2 / d**2 + 3 * s1 / d + 1)


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_invariances(seed: int) -> None:
    x, y = normal(20, 5, seed=seed), 1.3 * normal(25, 5, seed=seed + 1) + 0.1
    value, error = kernel_distance(x, y)
    q = torch.linalg.qr(normal(5, 5, seed=seed)).Q
    for a, b in ((y, x), (x @ q, y @ q), (x.flip(0), y.roll(3, 0))):
        assert kernel_distance(a, b) == (pytest.approx(value, rel=1e-9, abs=1e-12), pytest.approx(error, rel=1e-6))


def test_too_few() -> None:
    with pytest.raises(UserError, match="at least 4 samples"):
        KernelDistance().compute(Embedded.of(torch.zeros(3, 2)), Embedded.of(torch.zeros(9, 2)))
