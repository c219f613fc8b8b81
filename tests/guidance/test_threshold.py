"""Clipping."""

from __future__ import annotations

import torch

from unstir.denoiser import GaussianDenoiser
from unstir.guidance import ClipX0
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
