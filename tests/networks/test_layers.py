"""The parts of networks, each against a formula written out or a second implementation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.networks import layers
from unstir.networks.layers import (
    Attention,
    ChannelNorm,
    Sinusoid,
    crop,
    depth_to_space,
    pad_to_multiple,
    space_to_depth,
)

GRIDS = [(1, (6,)), (2, (4, 6)), (3, (2, 4, 6))]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_sinusoid_is_the_formula() -> None:
    c_noise = torch.tensor([-2.5, 0.1, 1.7])
    features = Sinusoid(6)(c_noise)
    for b, c in enumerate(c_noise.double().tolist()):
        angles = [1000 * c / 10000 ** (i / 3) for i in range(3)]
        expected = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
        torch.testing.assert_close(features[b], expected, atol=5e-4, rtol=0)  # angles to 2500 in float32


@pytest.mark.parametrize(("rank", "grid"), GRIDS)
@pytest.mark.parametrize("factor", [1, 2])
def test_patches_are_undone_exactly(rank: int, grid: tuple[int, ...], factor: int) -> None:
    x = randn(2, 3, *grid)
    patches = space_to_depth(x, factor)
    assert patches.shape == (2, 3 * factor**rank, *[size // factor for size in grid])
    assert torch.equal(depth_to_space(patches, factor), x)


def test_patches_are_pixel_unshuffle_in_the_plane() -> None:
    x = randn(2, 3, 6, 9)
    assert torch.equal(space_to_depth(x, 3), F.pixel_unshuffle(x, 3))
    assert torch.equal(depth_to_space(randn(2, 18, 2, 3), 3), F.pixel_shuffle(randn(2, 18, 2, 3), 3))


def test_a_patch_is_a_neighbourhood_in_any_rank() -> None:
    x = randn(1, 1, 4, 4, 4)
    point = space_to_depth(x, 2)[0, :, 1, 0, 1]
    assert torch.equal(point, x[0, 0, 2:4, 0:2, 2:4].flatten())


def test_padding_repeats_the_border_on_both_sides() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
    assert pad_to_multiple(x, 4).tolist() == [[[1, 1, 2, 3, 4, 5, 5, 5]]]
    assert pad_to_multiple(x, 5) is x


@pytest.mark.parametrize("grid", [(1,), (187,), (1, 9), (17, 23), (5, 1, 7)])
def test_crop_undoes_padding(grid: tuple[int, ...]) -> None:
    x = randn(2, 3, *grid)
    padded = pad_to_multiple(x, 8)
    assert all(size % 8 == 0 and size - old < 8 for size, old in zip(padded.shape[2:], grid, strict=True))
    assert torch.equal(crop(padded, grid), x)


@pytest.mark.parametrize("grid", [(6,), (3, 5), (2, 3, 4)])
def test_channel_norm_is_layer_norm_of_each_point(grid: tuple[int, ...]) -> None:
    norm, x = ChannelNorm(4), randn(2, 4, *grid)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    shape = (1, -1, *[1] * len(grid))
    mean, mean_square = x.mean(1, keepdim=True), x.square().mean(1, keepdim=True)
    expected = (x - mean) / (mean_square - mean**2 + 1e-5).sqrt()
    expected = expected * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(("channels", "groups"), [(64, 16), (128, 32), (6, 1), (48, 12), (100, 25), (3, 1)])
def test_groups_divide_the_channels_and_have_four_or_more(channels: int, groups: int) -> None:
    norm = layers.group_norm(channels)
    assert isinstance(norm, torch.nn.GroupNorm)
    assert norm.num_groups == groups


@pytest.mark.parametrize("gradient", [True, False])
def test_attend_is_softmax_written_by_hand(gradient: bool) -> None:
    """Whichever of its two ways the formula takes."""
    q, k, v = (randn(2, 3, 5, 4, seed=i).requires_grad_(gradient) for i in range(3))
    out = layers.attend(q, k, v)
    for b, h, i in [(0, 0, 0), (1, 2, 4), (1, 0, 3)]:
        weights = torch.stack([(q[b, h, i] @ k[b, h, j] / 2).exp() for j in range(5)])
        torch.testing.assert_close(out[b, h, i], (weights / weights.sum()) @ v[b, h], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("gradient", [True, False])
def test_attend_only_to_what_the_mask_allows(gradient: bool) -> None:
    q, k, v = (randn(2, 3, n, 4, seed=i).requires_grad_(gradient) for i, n in enumerate((2, 5, 5)))
    mask = torch.tensor([[True, False, True, True, False], [False, True, False, False, False]])
    out = layers.attend(q, k, v, mask)
    torch.testing.assert_close(out[:1], layers.attend(q[:1], k[:1, :, mask[0]], v[:1, :, mask[0]]))
    torch.testing.assert_close(out[1], v[1, :, 1:2].expand(3, 2, 4))


def test_attention_equals_a_second_implementation() -> None:
    """torch's own multi-head attention with the same weights."""
    attention = Attention(2, 8, 4, "layer")
    torch.nn.init.normal_(attention.out.weight)
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(attention.qkv.weight.flatten(1))
        reference.in_proj_bias.copy_(attention.qkv.bias)
        reference.out_proj.weight.copy_(attention.out.weight.flatten(1))
        reference.out_proj.bias.copy_(attention.out.bias)
    x = randn(2, 8, 3, 5)
    points = attention.norm(x).flatten(2).mT
    expected = x + reference(points, points, points, need_weights=False)[0].mT.reshape(x.shape)
    torch.testing.assert_close(attention(x), expected)


def test_attention_does_not_know_the_order_of_points() -> None:
    attention = Attention(1, 8, 4, "layer")
    torch.nn.init.normal_(attention.out.weight)
    x, order = randn(1, 8, 6), torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(attention(x[..., order]), attention(x)[..., order])


def test_any_width_has_heads_that_divide_it() -> None:
    assert Attention(2, 200, 64, "group").heads == 2  # 3 heads of at least 64 would not
    assert Attention(2, 192, 64, "group").heads == 3
    assert Attention(2, 32, 64, "group").heads == 1
