"""Attention pooling against guided-diffusion's way of writing it, and the encoder's place in the recipe."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.networks import EncoderConfig, MLPConfig, UNetConfig
from unstir.networks.encoder import AttentionPool
from unstir.processes import EDM
from unstir.recipes import DenoiserConfig, NoisyClassifierConfig

LABELLED = {"label": Condition("class", 3, ("a", "b", "c"))}
PICTURE, POINTS = DataSpec("image", (1, 9, 6), conditions=LABELLED), DataSpec("points", (2,), conditions=LABELLED)


def as_written(pool: AttentionPool, x: Tensor) -> Tensor:
    """All positions ask all others, and the answer to the mean is kept; q and k are scaled by the fourth root each."""
    w = dict(pool.state_dict())
    b, c = x.shape[:2]
    x = x.reshape(b, c, -1)
    x = torch.cat([x.mean(-1, keepdim=True), x], -1) + w["position"].T[None]
    weight, bias = torch.cat([w["q.weight"], w["kv.weight"]]), torch.cat([w["q.bias"], w["kv.bias"]])
    qkv = torch.einsum("oc,bcn->bon", weight, x) + bias[:, None]
    q, k, v = (part.reshape(b * pool.heads, c // pool.heads, -1) for part in qkv.chunk(3, 1))
    scale = 1 / math.sqrt(math.sqrt(c // pool.heads))
    attention = torch.softmax(torch.einsum("bct,bcs->bts", q * scale, k * scale), -1)
    a = torch.einsum("bts,bcs->bct", attention, v).reshape(b, c, -1)
    return (torch.einsum("oc,bcn->bon", w["out.weight"], a) + w["out.bias"][:, None])[:, :, 0]


@pytest.mark.parametrize("grid", [(5,), (2, 3), (1, 1), (2, 1, 3)])
def test_attention_pooling_is_the_paper_s(grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    pool = AttentionPool(12, 4, math.prod(grid), 5)
    torch.nn.init.normal_(pool.out.weight)
    x = torch.randn(3, 12, *grid)
    assert pool.heads == 3
    torch.testing.assert_close(pool(x), as_written(pool, x), rtol=1e-4, atol=1e-5)
    if math.prod(grid) > 1:  # every position counts, and each differently
        swapped = x.flatten(2).flip(-1).reshape(x.shape)
        assert not torch.allclose(pool(swapped), pool(x), atol=1e-3)


def test_a_classifier_does_not_see_the_class() -> None:
    classifier = NoisyClassifierConfig().build(EncoderConfig(channels=8, head_channels=8), EDM(), PICTURE)
    assert classifier.label == "label"
    assert len(classifier.network.embedding.conditions.names) == 0  # type: ignore[union-attr, arg-type]


def test_networks_and_modules_that_do_not_go_together_say_so() -> None:
    with pytest.raises(UserError, match="use --network unet"):
        DenoiserConfig().build(EncoderConfig(), EDM(), PICTURE)
    with pytest.raises(UserError, match="use --network encoder"):
        NoisyClassifierConfig().build(UNetConfig(), EDM(), PICTURE)
    with pytest.raises(UserError, match="use --network mlp"):
        NoisyClassifierConfig().build(EncoderConfig(), EDM(), POINTS)
    assert NoisyClassifierConfig().build(MLPConfig(), EDM(), POINTS).network.head.out_features == 3  # type: ignore[union-attr]
    with pytest.raises(UserError, match="a classifier learns classes"):
        NoisyClassifierConfig().build(EncoderConfig(), EDM(), DataSpec("image", (1, 8, 8)))
