"""Cross-entropy against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unstir.errors import UserError
from unstir.objectives import Batch
from unstir.objectives.classification import ClassificationObjective
from unstir.sampling import SampleNoise


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_it_is_the_smoothed_cross_entropy(smoothing: float) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0], [1.0, 1.5, -2.0]])
    label = torch.tensor([0, 2, 1])
    loss = ClassificationObjective(smoothing=smoothing)(
        nn.Identity(), Batch(logits, {"label": label}), SampleNoise(0, range(3))
    )
    for row, k, found in zip(logits.tolist(), label.tolist(), loss.total.tolist(), strict=True):
        total = sum(math.exp(v) for v in row)
        q = [(1 - smoothing) * (i == k) + smoothing / 3 for i in range(3)]
        assert found == pytest.approx(-sum(p * math.log(math.exp(v) / total) for p, v in zip(q, row)), rel=1e-5)
    assert loss.parts["accuracy"].tolist() == [1, 0, 1]
    assert torch.equal(loss.parts["loss"], loss.total)


def test_the_label_may_have_another_name_and_bf16_logits_lose_nothing_in_the_loss() -> None:
    logits = torch.tensor([[300.0, 299.0]])  # the difference of the exponents needs fp32
    batch = Batch(logits.bfloat16(), {"kind": torch.tensor([1])})
    loss = ClassificationObjective("kind", 0.0)(nn.Identity(), batch, SampleNoise(0, [0]))
    found = logits.bfloat16().float()[0]
    assert float(loss.total) == pytest.approx(math.log1p(math.exp(float(found[0] - found[1]))), rel=1e-6)


def test_smoothing_has_bounds() -> None:
    with pytest.raises(UserError, match="must lie in"):
        ClassificationObjective(smoothing=1.0)
