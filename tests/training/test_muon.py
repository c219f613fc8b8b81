"""Muon against the definition of what it approximates, and its Adam against PyTorch's."""

from __future__ import annotations

import pytest
import torch

from unstir.training.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (3, 6, 36)])
def test_orthogonalized_has_singular_values_near_one_and_the_same_singular_vectors(shape: tuple[int, ...]) -> None:
    g = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    inside = u.mT @ orthogonalize(g, 5) @ vh.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.25
    assert float((inside - torch.diag_embed(values)).abs().max()) < 1e-10
    assert float((s[..., 0] / s[..., -1]).min()) > 1.5  # there was something to do


def test_steps_along_the_orthogonalized_nesterov_momentum() -> None:
    w = torch.nn.Parameter(torch.zeros(3, 5))
    gradients = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    optimizer = Muon([w], [], 0.1, lr_scale=1.0, momentum=0.9, steps=5)
    expected, m = torch.zeros(3, 5), torch.zeros(3, 5)
    for g in gradients:
        w.grad = g.clone()
        optimizer.step()
        m = 0.9 * m + g
        expected = expected - 0.1 * 0.2 * 5**0.5 * orthogonalize(g + 0.9 * m, 5)
    torch.testing.assert_close(w.detach(), expected)


def test_matrices_of_several_shapes_step_as_they_would_alone() -> None:
    shapes = [(4, 3, 3, 3), (4, 6), (4, 3, 3, 3)]
    generator = torch.Generator().manual_seed(3)
    together = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for w in together:
        w.grad = torch.randn(w.shape, generator=generator)
    Muon(together, [], 0.1).step()
    for w in together:
        alone = torch.nn.Parameter(torch.zeros(w.shape))
        alone.grad = w.grad
        Muon([alone], [], 0.1).step()
        torch.testing.assert_close(w, alone)


def test_the_others_take_adam_steps() -> None:
    start = torch.randn(4, generator=torch.Generator().manual_seed(2))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon([], [ours], 0.05, betas=(0.9, 0.99))
    adam = torch.optim.Adam([theirs], 0.05, (0.9, 0.99))
    for _ in range(20):
        for p, optimizer in ((ours, mine), (theirs, adam)):
            optimizer.zero_grad()
            (p**4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_resumed_optimizer_goes_on_exactly() -> None:
    def run(stop: int | None) -> torch.Tensor:
        w, b = torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(3))
        optimizer = Muon([w], [b], 0.1)
        for i in range(6):
            if i == stop:
                saved = optimizer.state_dict()
                optimizer = Muon([w], [b], 0.1)
                optimizer.load_state_dict(saved)
            optimizer.zero_grad()
            ((w.sum(1) * torch.arange(3.0)).tanh() * b).sum().backward()
            optimizer.step()
        return torch.cat([w.detach().flatten(), b.detach()])

    assert torch.equal(run(None), run(3))
