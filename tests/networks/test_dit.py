"""DiT against diffusers' implementation with the same weights, the paper's sizes, and what every way of conditioning owes."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from torch import Tensor, nn

from unstir.data.spec import Condition, DataSpec, Kind
from unstir.errors import UserError
from unstir.networks import DiTConfig
from unstir.networks.dit import DiT
from unstir.networks.layers import crop, pad_to_multiple
from unstir.networks.tokens import AdaLNZeroBlock, grid_sincos
from unstir.training.config import MuonConfig

LABELLED = {"label": Condition("class", 3)}
SMALL = DiTConfig(depth=2, width=24, heads=3, patch=2)
WAYS = ("adaln-zero", "in-context", "cross-attention")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def new(config: DiTConfig, kind: Kind, grid: tuple[int, ...], out_channels: int = 2) -> DiT:
    """With small random numbers where it starts at zero."""
    torch.manual_seed(0)
    network = config.build(DataSpec(kind, (2, *grid), conditions=LABELLED), out_channels)
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    assert isinstance(network, DiT)
    return network


class Given(nn.Module):
    """In the place of diffusers' embedding of time and class: ours, which knows noise levels."""

    def __init__(self, total: Tensor) -> None:
        super().__init__()
        self.total = total

    def forward(self, *_: object, **__: object) -> Tensor:
        return self.total


def copied(network: DiT, theirs: nn.Module, total: Tensor) -> None:
    """Our weights and embedding into a DiTTransformer2DModel."""
    mine = network.state_dict()
    width, patch = mine["stem.weight"].shape[0], network.patch
    state = {
        "pos_embed.proj.weight": mine["stem.weight"].reshape(width, -1, patch, patch),
        "pos_embed.proj.bias": mine["stem.bias"],
        "proj_out_1.weight": mine["modulation.weight"],
        "proj_out_1.bias": mine["modulation.bias"],
        # Within a patch: ours are (channel, row, column), theirs (row, column, channel).
        "proj_out_2.weight": mine["head.weight"].reshape(-1, patch, patch, width).permute(1, 2, 0, 3).flatten(0, 2),
        "proj_out_2.bias": mine["head.bias"].reshape(-1, patch, patch).permute(1, 2, 0).flatten(),
    }
    for i in range(len(network.blocks)):
        for kind in ("weight", "bias"):
            here, there = f"blocks.{i}.", f"transformer_blocks.{i}."
            q, k, v = mine[f"{here}attention.qkv.{kind}"].chunk(3)
            state |= {f"{there}attn1.to_{name}.{kind}": value for name, value in zip("qkv", (q, k, v), strict=True)}
            state[f"{there}attn1.to_out.0.{kind}"] = mine[f"{here}attention.out.{kind}"]
            state[f"{there}ff.net.0.proj.{kind}"] = mine[f"{here}feed_forward.first.{kind}"]
            state[f"{there}ff.net.2.{kind}"] = mine[f"{here}feed_forward.second.{kind}"]
            state[f"{there}norm1.linear.{kind}"] = mine[f"{here}modulation.{kind}"]
    for block in theirs.transformer_blocks:  # type: ignore[union-attr]
        block.norm1.emb = Given(total)  # type: ignore[union-attr, operator]
    theirs.load_state_dict(state)
    # Theirs are rounded from float64, ours are float32; compared below.
    theirs.pos_embed.pos_embed = grid_sincos((4, 4), width)[None].double()  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_whole_network_is_diffusers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("diffusers.models.transformers.dit_transformer_2d")
    network = new(SMALL, "image", (8, 8), out_channels=3).double()
    x, c_noise, label = randn(4, 2, 8, 8).double(), randn(4, seed=1).double(), torch.tensor([0, 1, 2, -1])
    theirs = transformers.DiTTransformer2DModel(
        num_attention_heads=3, attention_head_dim=8, in_channels=2, out_channels=3, num_layers=2, sample_size=8,
        patch_size=2, norm_eps=1e-6,
    ).double()  # fmt: skip
    total = network.embedding.noise(c_noise) + network.embedding.conditions(c_noise, {"label": label})
    copied(network, theirs, total)
    index = torch.zeros(4, dtype=torch.int64)
    expected = theirs(x, timestep=index, class_labels=index).sample
    torch.testing.assert_close(network(x, c_noise, label=label), expected, rtol=1e-9, atol=1e-10)
    assert expected.std() > 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_places_in_a_picture_are_diffusers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.get_2d_sincos_pos_embed(24, 7, base_size=7)
    torch.testing.assert_close(grid_sincos((7, 7), 24).double(), theirs.double(), rtol=0, atol=1e-5)


PUBLISHED = {"S": 33, "B": 130, "L": 458, "XL": 675}
"""Millions of parameters: Peebles & Xie 2023, table 4 and the released models, for 1000 classes of 4-channel latents."""


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_paper_s_sizes_have_the_paper_s_parameters(size: str) -> None:
    spec = DataSpec("image", (4, 32, 32), conditions={"label": Condition("class", 1000)})
    with torch.device("meta"):
        network = DiTConfig(size=size, patch=2, depth=1, width=3).build(spec, out_channels=8)  # type: ignore[arg-type]
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert abs(millions - PUBLISHED[size]) < 0.02 * PUBLISHED[size]


@pytest.mark.parametrize(
    ("kind", "grid"), [("image", (7, 10)), ("image", (1, 3)), ("signal", (21,)), ("volume", (3, 4, 5))]
)
@pytest.mark.parametrize("way", WAYS)
def test_any_size_is_the_padded_size_cropped(kind: Kind, grid: tuple[int, ...], way: str) -> None:
    network = new(dataclasses.replace(SMALL, conditioning=way), kind, grid)  # type: ignore[arg-type]
    x, c_noise, label = randn(2, 2, *grid), torch.tensor([0.3, -1.0]), torch.tensor([1, -1])
    F = network(x, c_noise, label=label)
    assert F.shape == x.shape
    padded = pad_to_multiple(x, 2)
    assert padded.shape != x.shape
    torch.testing.assert_close(F, crop(network(padded, c_noise, label=label), grid))


def test_every_patch_sees_every_other_and_where_it_is() -> None:
    network = new(SMALL, "image", (8, 8))
    x = randn(1, 2, 8, 8).requires_grad_()
    network(x, torch.tensor([0.3]))[0, 0, 0, 0].backward()
    assert x.grad is not None
    assert bool((x.grad[0].abs().sum(0) > 0).all())
    same = torch.ones(1, 2, 8, 8)  # all patches alike but for their places
    F = network(same, torch.tensor([0.3])).reshape(2, 4, 2, 4, 2)
    assert not torch.allclose(F[:, 0, :, 0], F[:, 1, :, 0])
    assert not torch.allclose(F[:, 0, :, 0], F[:, 0, :, 1])


@pytest.mark.parametrize("way", WAYS)
def test_blocks_do_nothing_at_first(way: str) -> None:
    """With a last layer that is not 0: as many blocks as you like say what one says."""
    results = []
    for depth in (1, 5):
        torch.manual_seed(0)
        config = dataclasses.replace(SMALL, depth=depth, conditioning=way)  # type: ignore[arg-type]
        network = config.build(DataSpec("image", (2, 8, 8), conditions=LABELLED), 2)
        assert torch.equal(network(randn(2, 2, 8, 8), randn(2)), torch.zeros(2, 2, 8, 8))
        with torch.no_grad():
            network.head.weight.copy_(randn(*network.head.weight.shape))  # type: ignore[union-attr, operator, misc]
            network.stem.weight.copy_(randn(*network.stem.weight.shape))  # type: ignore[union-attr, operator, misc]
            network.stem.bias.zero_()  # type: ignore[union-attr, operator]
        results.append(network(randn(2, 2, 8, 8), randn(2), label=torch.tensor([0, 2])))
    assert torch.equal(*results)
    assert results[0].std() > 0.1


def test_in_context_the_conditions_are_a_token_among_the_patches() -> None:
    """By hand: the sequence with the embedding before it, and the embedding's place left out at the end."""
    network = new(dataclasses.replace(SMALL, conditioning="in-context"), "signal", (8,)).double()
    x, c_noise, label = randn(2, 2, 8).double(), randn(2, seed=1).double(), torch.tensor([2, -1])
    vector = network.embedding(c_noise, {"label": label}).vector
    patches = x.reshape(2, 2, 4, 2).permute(0, 2, 1, 3).flatten(2)
    h = network.stem(patches) + grid_sincos((4,), 24)
    h = torch.cat([h, vector[:, None]], 1)
    for block in network.blocks:
        h = h + block.attention(block.norm_1(h))
        h = h + block.feed_forward(block.norm_2(h))
    expected = network.head(network.norm(h[:, :4])).reshape(2, 4, 2, 2).permute(0, 2, 1, 3).flatten(2)
    torch.testing.assert_close(network(x, c_noise, label=label), expected)


@pytest.mark.parametrize("way", WAYS)
def test_recomputing_activations_changes_no_bit(way: str) -> None:
    x, c_noise = randn(2, 2, 6, 8), randn(2)
    found = []
    for recompute in (False, True):
        config = dataclasses.replace(SMALL, conditioning=way, checkpoint_activations=recompute)  # type: ignore[arg-type]
        network = new(config, "image", (6, 8))
        F = network(x, c_noise, label=torch.tensor([1, 0]))
        F.square().sum().backward()
        found.append([F.detach(), *[p.grad for p in network.parameters() if p.grad is not None]])
    assert len(found[0]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_low_precision_is_close(way: str) -> None:
    network = new(dataclasses.replace(SMALL, conditioning=way), "image", (16, 16))  # type: ignore[arg-type]
    x, c_noise = randn(4, 2, 16, 16), torch.linspace(-2, 2, 4)
    F = network(x, c_noise)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(x, c_noise).float()
    assert (low - F).square().mean() < 1e-3 * F.square().mean()


def test_muon_steps_the_matrices_inside_the_blocks() -> None:
    network = new(SMALL, "image", (8, 8))
    optimizer = MuonConfig().build(network, 1e-3)
    inner = {id(p) for group in optimizer.param_groups if group["inner"] for p in group["params"]}
    names = [key for key, p in network.named_parameters() if id(p) in inner]
    parts = ("attention.qkv", "attention.out", "feed_forward.first", "feed_forward.second")
    assert names == [f"blocks.{i}.{part}.weight" for i in range(2) for part in parts]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


def test_a_gate_lets_its_part_through() -> None:
    """adaLN-Zero by hand, for one token, where attention is the identity on values."""
    block = AdaLNZeroBlock(4, 1).double()
    nn.init.normal_(block.modulation.weight)
    nn.init.normal_(block.modulation.bias)
    x, embedding = randn(1, 1, 4).double(), randn(1, 4, seed=1).double()
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = block.modulation(embedding)[0].split(4)

    def norm(v: Tensor) -> Tensor:
        return (v - v.mean()) / (v.var(unbiased=False) + 1e-6).sqrt()

    v = x[0, 0]
    seen = (1 + scale_1) * norm(v) + shift_1
    v = v + gate_1 * block.attention.out(block.attention.qkv(seen)[8:])  # one token: the softmax is 1
    v = v + gate_2 * block.feed_forward((1 + scale_2) * norm(v) + shift_2)
    torch.testing.assert_close(block(x, embedding=embedding)[0, 0], v)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (DiTConfig(width=100, heads=3), "multiple"),
        (DiTConfig(patch=0), "at least 1"),
        (DiTConfig(depth=0), "at least 1"),
    ],
)
def test_sizes_that_make_no_network(config: DiTConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        config.build(DataSpec("image", (3, 8, 8)), 3)
