"""The network for points: it learns."""

from __future__ import annotations

import math

import pytest
import torch

from unstir.data.spec import Condition, DataSpec
from unstir.networks import MLPConfig


def test_it_learns_which_moon_and_where() -> None:
    """From noise level and class to a point on one of two half circles: a function that no linear map comes near.

    A constant has the targets' variance as its error, and the best linear map of (angle, class) over 0.1.
    """
    torch.manual_seed(0)
    network = MLPConfig(width=32, depth=2).build(
        DataSpec("points", (2,), conditions={"label": Condition("class", 2)}), 2
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(0)

    def batch(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        label = torch.randint(2, (size,), generator=rng)
        u = torch.rand(size, generator=rng)
        upper = torch.stack([(math.pi * u).cos(), (math.pi * u).sin()], 1)
        target = torch.where(label[:, None] == 0, upper, torch.tensor([1.0, 0.5]) - upper)
        return torch.stack([u, 1 - u], 1) * 2 - 1, label, target

    for _ in range(300):
        x, label, target = batch(128)
        loss = (network(x, torch.zeros(128), label=label) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        x, label, target = batch(2000)
        linear = torch.cat([x, label[:, None].float(), torch.ones(2000, 1)], 1)
        best_linear = (linear @ torch.linalg.lstsq(linear, target).solution - target).square().mean()
        error = (network(x, torch.zeros(2000), label=label) - target).square().mean()
    assert best_linear > 0.04
    assert error < 2e-3


@pytest.mark.parametrize("width", [2, 7, 16, 130])
def test_any_width(width: int) -> None:
    network = MLPConfig(width=width, depth=1).build(DataSpec("points", (2,)), 2)
    assert network(torch.ones(3, 2), torch.zeros(3)).tolist() == [[0, 0]] * 3
