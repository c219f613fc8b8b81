"""Clipping and dynamic thresholding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unstir.denoiser import GaussianDenoiser
from unstir.guidance import ClipX0, DynamicThreshold
from unstir.guidance.threshold import percentile
from unstir.processes import VP, RectifiedFlow


def test_clipped_x_0_and_the_eps_that_fits() -> None:
    exact = GaussianDenoiser(VP(), torch.zeros(3).double(), torch.ones(3).double())
    x_t, t = torch.tensor([[-4.0, 0.2, 3.0]], dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    before, after = exact(x_t, t), ClipX0(exact, -0.5, 1)(x_t, t)
    assert before.x_0.abs().max() > 1  # there is something to clip
    torch.testing.assert_close(after.x_0, before.x_0.clamp(-0.5, 1))
    torch.testing.assert_close(after.eps, (x_t - after.alpha * after.x_0) / after.sigma)
    assert torch.equal(after.eps[0, 1], before.eps[0, 1])  # within the range nothing changes


def test_at_both_ends() -> None:
    exact = GaussianDenoiser(RectifiedFlow(), torch.full((2,), 3.0).double(), torch.ones(2).double())
    x = torch.tensor([[2.0, -5.0]], dtype=torch.float64)
    data = ClipX0(exact)(x, torch.tensor(0.0).double())
    assert data.x_0.tolist() == [[1, -1]]
    assert data.eps.isfinite().all()
    noise = ClipX0(exact)(x, torch.tensor(1.0).double())
    assert noise.x_0.tolist() == [[1, 1]]
    torch.testing.assert_close(noise.eps, x)


def shifted() -> GaussianDenoiser:
    return GaussianDenoiser(VP(), torch.zeros(1, 4, 5).double(), torch.full((1, 4, 5), 3.0).double())


X = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0)).double() * torch.tensor(
    [0.1, 1.0, 4.0]
).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("p", [50.0, 90.0, 99.5, 100.0])
def test_percentiles_are_numpy_s(p: float) -> None:
    got = percentile(X, p)
    np.testing.assert_allclose(got.flatten(), np.percentile(X.flatten(1).numpy(), p, axis=1), rtol=1e-12)
    assert percentile(X[:, :, :1, :1], p).flatten().tolist() == X[:, 0, 0, 0].tolist()


def test_dynamic_thresholding_in_closed_form() -> None:
    t = torch.tensor(0.1).double()
    before, after = shifted()(X, t), DynamicThreshold(shifted(), 90.0)(X, t)
    s = np.percentile(before.x_0.abs().flatten(1).numpy(), 90, axis=1).reshape(-1, 1, 1, 1)
    assert (s < 1).any()
    assert (s > 1).any()
    wanted = np.clip(before.x_0.numpy(), -np.maximum(s, 1), np.maximum(s, 1)) / np.maximum(s, 1)
    np.testing.assert_allclose(after.x_0.numpy(), wanted, rtol=1e-12)
    assert after.x_0.abs().max() <= 1
    torch.testing.assert_close(after.alpha * after.x_0 + after.sigma * after.eps, X)
    assert torch.equal(after.x_0[0], before.x_0[0])  # within the range nothing changes
    widest = DynamicThreshold(shifted(), 100.0)(X, t).x_0[2]
    torch.testing.assert_close(widest, before.x_0[2] / before.x_0[2].abs().max())  # all shrinks, nothing is clipped


def test_a_range_that_is_not_symmetric() -> None:
    t = torch.tensor(0.1).double()
    low, high = -0.5, 2.5
    before, after = shifted()(X, t), DynamicThreshold(shifted(), 90.0, low, high)(X, t)
    unit = (before.x_0 - 1) / 1.5
    s = percentile(unit.abs(), 90.0).clamp(min=1)
    torch.testing.assert_close(after.x_0, 1 + 1.5 * unit.clamp(-s, s) / s)
    assert low <= after.x_0.min() < after.x_0.max() <= high
