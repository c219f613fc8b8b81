"""The U-Net: any size and rank, and switches that change speed or memory but never what it says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from unstir.cli.arguments import parse
from unstir.data.spec import DataSpec, Kind
from unstir.networks import UNetConfig
from unstir.networks.layers import crop, pad_to_multiple
from unstir.recipes import Recipe
from unstir.recipes.serial import override

SMALL = UNetConfig(channels=8, multipliers=(1, 2, 2), attention=(1, 2), middle=2)
SIZES: list[tuple[Kind, tuple[int, ...]]] = [
    ("image", (28, 28)), ("image", (17, 23)), ("image", (1, 9)), ("signal", (187,)), ("signal", (1,)), ("volume", (5, 6, 9)),
]  # fmt: skip


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def new(config: UNetConfig, kind: Kind, grid: tuple[int, ...]) -> nn.Module:
    """With small random numbers where it starts at zero."""
    torch.manual_seed(0)
    network = config.build(DataSpec(kind, (2, *grid)), 2)
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    return network


def results(network: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output and gradients of a loss with dropout under a fixed seed."""
    torch.manual_seed(1)
    network.zero_grad()
    F = network(x, torch.linspace(-2, 2, len(x), dtype=x.dtype))
    (F * randn(*F.shape, seed=2).to(F.dtype)).sum().backward()
    return F.detach(), [p.grad.clone() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize(("kind", "grid"), SIZES)
@pytest.mark.parametrize("patch", [1, 2])
def test_any_size_is_the_padded_size_cropped(kind: Kind, grid: tuple[int, ...], patch: int) -> None:
    network = new(dataclasses.replace(SMALL, patch=patch), kind, grid)
    x, c_noise = randn(2, 2, *grid), torch.tensor([0.3, -1.0])
    F = network(x, c_noise)
    assert F.shape == x.shape
    padded = pad_to_multiple(x, patch * 4)
    assert padded.shape != x.shape or grid == (28, 28)
    torch.testing.assert_close(F, crop(network(padded, c_noise), grid))


@pytest.mark.parametrize(("kind", "grid"), SIZES)
def test_every_output_sees_every_input(kind: Kind, grid: tuple[int, ...]) -> None:
    """The corner of the output depends on the opposite corner of the input (by attention), and on its own."""
    network = new(SMALL, kind, grid)
    x = randn(1, 2, *grid).requires_grad_()
    network(x, torch.tensor([0.3]))[(0, 0, *[0] * len(grid))].backward()
    assert x.grad is not None
    assert x.grad[(0, 0, *[-1] * len(grid))] != 0
    assert x.grad[(0, 1, *[0] * len(grid))] != 0


def test_the_way_up_gets_what_the_way_down_saw() -> None:
    """Level by level: beside what comes from below lies exactly the result of the same level on the way down."""
    network = new(SMALL, "image", (16, 16))
    seen: list[Tensor] = []
    kept: list[Tensor] = []
    for down, up in zip(network.down, network.up, strict=True):
        down.register_forward_hook(lambda module, args, out: seen.append(out))
        up.register_forward_pre_hook(lambda module, args: kept.append(args[0].chunk(2, dim=1)[1]))
    network(randn(1, 2, 16, 16), torch.zeros(1))
    assert len(seen) == len(kept) == 2
    for from_down, at_up in zip(seen, reversed(kept), strict=True):
        assert from_down.any()
        assert torch.equal(from_down, at_up)


def test_the_efficient_order() -> None:
    """Down-sampling before the blocks, up-sampling after them, and what goes across scaled by 1/sqrt(2): written out."""
    torch.manual_seed(0)
    network = new(dataclasses.replace(SMALL, efficient=True), "image", (16, 16)).double()
    x, c_noise = randn(2, 2, 16, 16).double(), randn(2, seed=1).double()
    e = network.embedding(c_noise, {})
    patches = nn.functional.pixel_unshuffle(x, 2)
    h_0 = network.stem(patches)  # 8 x 8
    h_1 = network.down[0](network.shrink[0](h_0), e)  # 4 x 4
    h_2 = network.down[1](network.shrink[1](h_1), e)  # 2 x 2
    h = network.middle(h_2, e)
    h = network.up[1](torch.cat([h, h_2 / 2**0.5], 1), e)
    h = network.grow[1](h.repeat_interleave(2, 2).repeat_interleave(2, 3))
    h = network.up[0](torch.cat([h, h_1 / 2**0.5], 1), e)
    h = network.grow[0](h.repeat_interleave(2, 2).repeat_interleave(2, 3))
    expected = nn.functional.pixel_shuffle(network.head(nn.functional.silu(h)), 2)
    torch.testing.assert_close(network(x, c_noise), expected)
    assert h_0.shape[2:] == (8, 8)
    assert h_2.shape == (2, 16, 2, 2)


def test_each_level_has_its_number_of_blocks() -> None:
    deep = new(dataclasses.replace(SMALL, blocks=(1, 3)), "image", (16, 16))
    assert [len(stack.blocks) for stack in deep.down] == [1, 3]
    assert [len(stack.blocks) for stack in deep.up] == [2, 4]
    same = new(dataclasses.replace(SMALL, blocks=(2,)), "image", (16, 16))
    assert [len(stack.blocks) for stack in same.down] == [2, 2]


def test_one_number_of_blocks_is_read_as_before() -> None:
    assert override(UNetConfig(), {"blocks": 2}).blocks == (2,)
    assert override(UNetConfig(), {"blocks": [1, 2]}).blocks == (1, 2)
    recipe = parse(Recipe(), ["--network.blocks", "2"], "x")
    assert recipe.network.blocks == (2,)  # type: ignore[attr-defined]
    recipe = parse(Recipe(), ["--network.blocks", "1", "2", "--network.efficient"], "x")
    assert recipe.network.blocks == (1, 2)  # type: ignore[attr-defined]


def test_without_attention_it_moves_with_the_data() -> None:
    """Convolutions know no place: data moved by a multiple of the coarsest step give the same answer, moved."""
    config = dataclasses.replace(SMALL, attention=(), multipliers=(1, 2), middle=1)
    network, c_noise = new(config, "signal", (128,)), torch.tensor([0.3])
    x = torch.zeros(1, 2, 128)
    x[..., 60:68] = randn(1, 2, 8)
    moved, F = network(x.roll(8, -1), c_noise), network(x, c_noise)
    torch.testing.assert_close(moved[..., 48:88], F.roll(8, -1)[..., 48:88])
    assert not torch.allclose(moved[..., 48:88], F[..., 48:88])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_activations_changes_no_bit(dropout: float) -> None:
    config = dataclasses.replace(SMALL, dropout=dropout)
    x = randn(3, 2, 12, 10)
    F, gradients = results(new(config, "image", (12, 10)), x)
    again = dataclasses.replace(config, checkpoint_activations=True)
    F_again, gradients_again = results(new(again, "image", (12, 10)), x)
    assert torch.equal(F, F_again)
    assert len(gradients) == len(gradients_again) > 50
    assert all(torch.equal(a, b) for a, b in zip(gradients, gradients_again, strict=True))


def test_recomputing_really_recomputes() -> None:
    """A block's forward pass runs twice in a step."""
    calls = {False: 0, True: 0}
    for recompute in calls:
        network = new(dataclasses.replace(SMALL, checkpoint_activations=recompute), "image", (8, 8))
        block = next(m for m in network.modules() if type(m).__name__ == "ResidualBlock")

        def count(*_: object, recompute: bool = recompute) -> None:
            calls[recompute] += 1

        block.register_forward_pre_hook(count)
        results(network, randn(1, 2, 8, 8))
    assert calls == {False: 1, True: 2}


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize(("kind", "grid"), [("image", (12, 10)), ("volume", (4, 6, 5)), ("signal", (30,))])
def test_memory_layout_changes_nothing_but_speed(kind: Kind, grid: tuple[int, ...], norm: str) -> None:
    config = dataclasses.replace(SMALL, norm=norm)
    x = randn(2, 2, *grid).double()  # where rounding cannot hide or feign a difference
    network, plain = (
        new(dataclasses.replace(config, channels_last=last), kind, grid).double() for last in (True, False)
    )
    plain.load_state_dict(network.state_dict())  # random numbers are filled in memory order, which differs
    (F, gradients), (F_plain, gradients_plain) = results(network, x), results(plain, x)
    torch.testing.assert_close(F, F_plain, atol=1e-10, rtol=1e-10)
    for mine, theirs in zip(gradients, gradients_plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10)


def test_channels_last_runs_through() -> None:
    """The speed is lost silently where one layer goes back to the other layout."""
    network = new(dataclasses.replace(SMALL, channels_last=True), "image", (16, 12))
    layouts: list[bool] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_pre_hook(
                lambda m, args: layouts.append(args[0].is_contiguous(memory_format=torch.channels_last))
            )
    network(randn(2, 2, 16, 12), torch.zeros(2))
    assert len(layouts) > 20
    assert all(layouts)


@pytest.mark.parametrize("channels", [6, 33, 50, 100])
def test_any_number_of_channels(channels: int) -> None:
    network = new(UNetConfig(channels=channels, head_channels=32), "image", (8, 8))
    assert network(randn(1, 2, 8, 8), torch.zeros(1)).abs().max() > 0


def test_low_precision_is_close() -> None:
    network, x, c_noise = new(SMALL, "image", (16, 16)), randn(4, 2, 16, 16), torch.linspace(-2, 2, 4)
    F = network(x, c_noise)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(x, c_noise).float()
    assert (
        low - F
    ).square().mean() < 1e-3 * F.square().mean()  # bfloat16 has 8 bits: 4e-3 a number, squared, over layers
