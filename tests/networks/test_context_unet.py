"""The course's network: its mistakes are not repeated, and its context is what the course says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unstir.data.spec import Condition, DataSpec
from unstir.networks import ContextUNetConfig
from unstir.networks.context_unet import Context, ResidualConvBlock


def test_the_shortcut_is_a_trained_layer() -> None:
    """In the course's notebook it is made anew at every call: random, untrained, and different each time."""
    network = ContextUNetConfig(n_feat=8).build(DataSpec("image", (3, 8, 8)), 3)
    shortcut = dict(network.named_parameters())["initial.shortcut.weight"]
    x = torch.randn(4, 3, 8, 8)
    network.eval()
    assert torch.equal(network(x, torch.zeros(4)), network(x, torch.zeros(4)))
    before = shortcut.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(x, torch.zeros(4)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(shortcut, before)


def test_the_residual_block_is_the_formula() -> None:
    block = ResidualConvBlock(3, 8, residual=True).eval()
    x = torch.randn(2, 3, 5, 5)
    expected = (block.shortcut(x) + block.conv_2(block.conv_1(x))) / 2**0.5
    torch.testing.assert_close(block(x), expected)
    assert [type(layer) for layer in block.conv_1] == [nn.Conv2d, nn.BatchNorm2d, nn.GELU]


def test_context_is_one_hot_classes_and_bare_vectors_with_zeros_for_null() -> None:
    context = Context({"v": Condition("vector", 2), "y": Condition("class", 3), "t": Condition("text", 0)})
    c_noise = torch.zeros(2)
    v, y = torch.tensor([[0.5, torch.nan], [2.0, -1.0]]), torch.tensor([2, -1])
    assert context(c_noise, {"v": v, "y": y}).tolist() == [[0.5, 0, 0, 0, 1], [2, -1, 0, 0, 0]]
    assert context(c_noise, {"y": y}).tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert not context(c_noise, {}).any()


def test_context_multiplies_and_time_is_added() -> None:
    """With context factors of 0, what comes up is the time's alone: the data reach the output by the ways across only."""
    network = ContextUNetConfig(n_feat=8).build(DataSpec("image", (1, 8, 8)), 1).eval()
    heard: list[torch.Tensor] = []
    network.up_1.register_forward_pre_hook(lambda m, args: heard.append(args[0]))
    for embedding in (network.context_1, network.context_2):
        nn.init.zeros_(embedding[2].weight)
        nn.init.zeros_(embedding[2].bias)
    c_noise = torch.tensor([0.2, -1.0])
    network(torch.randn(2, 1, 8, 8), c_noise)
    torch.testing.assert_close(heard[0], network.time_1(c_noise[:, None]).expand_as(heard[0]))
    for embedding in (network.context_1, network.context_2):
        nn.init.ones_(embedding[2].bias)
    x = torch.randn(2, 1, 8, 8)
    network(x, c_noise)
    below = network.up_0(network.to_vector(network.down_2(network.down_1(network.initial(x)))))
    torch.testing.assert_close(heard[1], below + network.time_1(c_noise[:, None]))


@pytest.mark.parametrize("grid", [(16, 16), (15, 18), (3, 5), (1, 7)])
def test_any_height_and_width(grid: tuple[int, int]) -> None:
    """As if the border had been repeated to a multiple of 4 beforehand."""
    torch.manual_seed(0)
    network = ContextUNetConfig(n_feat=8).build(DataSpec("image", (2, *grid)), 2).eval()
    x, c_noise = torch.randn(2, 2, *grid), torch.tensor([0.1, 1.0])
    F = network(x, c_noise)
    assert F.shape == x.shape
    height, width = (-size % 4 for size in grid)
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    padded = network(nn.functional.pad(x, sides, mode="replicate"), c_noise)
    inside = padded[..., height // 2 : height // 2 + grid[0], width // 2 : width // 2 + grid[1]]
    torch.testing.assert_close(F, inside)
