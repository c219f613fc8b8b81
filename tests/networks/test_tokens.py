"""Tokens and captions: transformers against PyTorch's own, captions that end where they end, and networks that learn to read."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.data.spec import Condition
from unstir.networks.embedding import Embedding
from unstir.networks.text import Captions, TextTokens
from unstir.networks.tokens import CrossAttention, TokenBlock, Tokens, grid_sincos, joined, sincos, token

WORDS, FEATURES = Condition("text", 9, shape=(5,)), Condition("text", 0, shape=(4, 6))
NAN = math.nan


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(module: nn.Module) -> nn.Module:
    """In float64, with random numbers everywhere: also where it starts at 0 or 1."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def test_the_mean_is_over_the_tokens_that_are_there() -> None:
    states, mask = randn(2, 3, 4), torch.tensor([[True, False, True], [True, False, False]])
    mean = Tokens(states, mask).mean()
    torch.testing.assert_close(mean[0], (states[0, 0] + states[0, 2]) / 2)
    torch.testing.assert_close(mean[1], states[1, 0])
    both = joined([token(randn(2, 4, seed=1)), Tokens(states, mask)])
    assert both.mask.tolist() == [[True, True, False, True], [True, True, False, False]]
    torch.testing.assert_close(both.states[:, 1:], states)


def test_places_are_the_formula() -> None:
    found = sincos(4, 6).double()
    for p in range(4):
        angles = [p / 10000 ** (i / 3) for i in range(3)]
        expected = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles], dtype=torch.float64)
        torch.testing.assert_close(found[p], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 3, 4)])
def test_places_of_a_grid_are_those_of_its_axes_the_last_one_first(grid: tuple[int, ...]) -> None:
    width = 25  # shares of 24, 12 and 8, and what is left over is 0
    share = {1: 24, 2: 12, 3: 8}[len(grid)]
    found = grid_sincos(grid, width)
    assert torch.equal(found[:, share * len(grid) :], torch.zeros(math.prod(grid), width - share * len(grid)))
    places = [(i, *rest) for i in range(grid[0]) for rest in _rest(grid[1:])]
    for n, place in enumerate(places):
        for k, p in enumerate(reversed(place)):
            torch.testing.assert_close(found[n, k * share : (k + 1) * share], sincos(p + 1, share)[p])


def _rest(grid: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(i, *rest) for i in range(grid[0]) for rest in _rest(grid[1:])] if grid else [()]


def _torch_layer(block: TokenBlock, width: int, heads: int) -> nn.Module:
    """PyTorch's own pre-norm transformer layer with the same weights."""
    layer = nn.TransformerEncoderLayer(
        width,
        heads,
        4 * width,
        dropout=0.0,
        activation=lambda x: F.gelu(x, approximate="tanh"),
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    )
    mine = {key: value.clone() for key, value in block.state_dict().items()}
    theirs = {
        **{f"self_attn.in_proj_{kind}": mine[f"attention.qkv.{kind}"] for kind in ("weight", "bias")},
        **{f"self_attn.out_proj.{kind}": mine[f"attention.out.{kind}"] for kind in ("weight", "bias")},
        **{f"linear1.{kind}": mine[f"feed_forward.first.{kind}"] for kind in ("weight", "bias")},
        **{f"linear2.{kind}": mine[f"feed_forward.second.{kind}"] for kind in ("weight", "bias")},
        **{f"norm{i}.{kind}": mine[f"norm_{i}.{kind}"] for i in (1, 2) for kind in ("weight", "bias")},
    }
    layer.load_state_dict(theirs)
    return layer


@pytest.mark.parametrize("gradient", [True, False])
def test_a_block_is_a_transformer_layer(gradient: bool) -> None:
    block, x = awake(TokenBlock(8, 2)), randn(2, 5, 8)
    layer = _torch_layer(block, 8, 2)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    with torch.set_grad_enabled(gradient):  # attention takes another way
        torch.testing.assert_close(block(x), layer(x))
        # Only where there is a token: the rest is nobody's business, and of no consequence to the others.
        torch.testing.assert_close(block(x, mask)[mask], layer(x, src_key_padding_mask=~mask)[mask])


@pytest.mark.parametrize("gradient", [True, False])
def test_attention_to_another_sequence_is_pytorch_s(gradient: bool) -> None:
    cross = awake(CrossAttention(8, 6, 2))
    theirs = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        k_weight, v_weight = cross.kv.weight.chunk(2)
        theirs.q_proj_weight.copy_(cross.q.weight)
        theirs.k_proj_weight.copy_(k_weight)
        theirs.v_proj_weight.copy_(v_weight)
        theirs.in_proj_bias.copy_(torch.cat([cross.q.bias, cross.kv.bias]))
        theirs.out_proj.weight.copy_(cross.out.weight)
        theirs.out_proj.bias.copy_(cross.out.bias)
    x, states = randn(2, 5, 8), randn(2, 4, 6, seed=1)
    mask = torch.tensor([[True] * 4, [True, False, True, False]])
    with torch.set_grad_enabled(gradient):
        expected = theirs(cross.norm(x), states, states, key_padding_mask=~mask, need_weights=False)[0]
        torch.testing.assert_close(cross(x, Tokens(states, mask)), x + expected)


def test_frozen_features_go_through_one_layer() -> None:
    text = awake(TextTokens(FEATURES, 8))
    value = randn(2, 4, 6)
    value[1, 2:] = NAN
    states, mask = text(value)
    assert mask.tolist() == [[True] * 5, [True, True, True, False, False]]
    for b, j in [(0, 0), (0, 3), (1, 1)]:
        expected = F.layer_norm(text.read.weight @ value[b, j] + text.read.bias, (8,), text.norm.weight, text.norm.bias)
        torch.testing.assert_close(states[b, 1 + j], expected)
    assert states.isfinite().all()
    # A feature that is missing in part is missing: encoders do not give halves of numbers.
    value[0, 3, 2] = NAN
    assert text(value).mask.tolist() == [[True] * 4 + [False], [True, True, True, False, False]]


def test_tokens_go_through_the_transformer_with_their_places() -> None:
    text = awake(TextTokens(WORDS, 8, depth=1))
    value = torch.tensor([[3, 8, 3, -1, -1]])
    h = torch.cat([text.start[None], text.read.weight[[3, 8, 3]] + sincos(3, 8)])[None]
    expected = text.norm(text.blocks[0](h))
    torch.testing.assert_close(text(value).states[:, :4], expected)
    assert not torch.allclose(expected[:, 1], expected[:, 3])  # the same letter elsewhere


@pytest.mark.parametrize("condition", [WORDS, FEATURES], ids=["words", "features"])
def test_padding_and_company_change_nothing(condition: Condition) -> None:
    """The same caption, cut where it ends, padded beyond what was declared, and beside longer ones."""
    text = awake(TextTokens(condition, 8))
    frozen = len(condition.shape) == 2
    caption = randn(1, 2, 6) if frozen else torch.tensor([[4, 0]])

    def padded(length: int) -> Tensor:
        gap = length - 2
        return F.pad(caption, (0, 0, 0, gap) if frozen else (0, gap), value=NAN if frozen else -1)

    states = text(caption).states
    longer = randn(1, 7, 6, seed=3) if frozen else torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    for found in (text(padded(7)), text(torch.cat([padded(7), longer])), text(padded(40))):
        assert found.mask[0].tolist() == [True] * 3 + [False] * (found.mask.shape[1] - 3)
        torch.testing.assert_close(found.states[:1, :3], states)
        torch.testing.assert_close(found.mean()[:1], text(caption).mean())


@pytest.mark.parametrize("condition", [WORDS, FEATURES], ids=["words", "features"])
def test_no_caption_is_the_start_alone(condition: Condition) -> None:
    text = awake(TextTokens(condition, 8))
    null = text.null(2, torch.device("cpu"))
    assert null.shape == (2, *condition.shape)
    found = text(null.double() if len(condition.shape) == 2 else null)
    assert found.mask.sum(1).tolist() == [1, 1]
    alone = text.start[None, None]
    for block in text.blocks:
        alone = block(alone)
    torch.testing.assert_close(found.mean()[:1], text.norm(alone)[:, 0])
    found.states.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in text.parameters())


def test_the_vector_is_the_sum_over_captions_of_what_their_means_say() -> None:
    conditions = {"words": WORDS, "other": FEATURES, "unread": Condition("text", 0), "label": Condition("class", 2)}
    captions = awake(Captions(conditions, 3, 8, 1))
    words, features = torch.tensor([[1, 2, -1, -1, -1]]), randn(1, 4, 6)
    vector, sequence = captions(torch.zeros(1), {"words": words, "other": features})
    one, two = captions.parts[0](words), captions.parts[1](features)
    torch.testing.assert_close(vector, captions.pooled[0](one.mean()) + captions.pooled[1](two.mean()))
    torch.testing.assert_close(sequence.states, torch.cat([one.states, two.states], 1))
    absent, _ = captions(torch.zeros(1), {"other": features})
    null, _ = captions(torch.zeros(1), {"other": features, "words": torch.full((1, 5), -1)})
    assert torch.equal(absent, null)
    assert not torch.allclose(absent, vector)


def test_captions_add_nothing_to_the_embedding_at_first() -> None:
    plain, read = Embedding({}, 8), Embedding({"words": WORDS}, 8)
    missing = read.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(key.startswith("captions.") for key in missing)
    c_noise, words = torch.tensor([0.3, -1.0]), torch.tensor([[1, 2, 3, 4, 5], [6, -1, -1, -1, -1]])
    assert torch.equal(plain(c_noise, {}).vector, read(c_noise, {"words": words}).vector)
    assert plain.text_width == 0
    assert plain(c_noise, {}).text is None


def test_it_learns_to_read() -> None:
    """Which of four anagrams it is, and nothing but the order of the letters tells."""
    torch.manual_seed(0)
    captions = torch.tensor([[1, 2, 3, -1, -1], [3, 2, 1, -1, -1], [2, 1, 3, -1, -1], [3, 1, 2, -1, -1]])
    text, head = TextTokens(WORDS, 32), nn.Linear(32, 4)
    optimizer = torch.optim.Adam([*text.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(120):
        loss = F.cross_entropy(head(text(captions).mean()), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # chance: 1.39
