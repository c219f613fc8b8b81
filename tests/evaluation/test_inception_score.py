"""Inception score against torchmetrics and its extremes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.evaluation.inception_score import InceptionScore, inception_score
from unstir.evaluation.metric import Embedded


def test_equals_torchmetrics() -> None:
    from torchmetrics.image.inception import InceptionScore as Theirs

    class Identity(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    logits = 3 * torch.randn(203, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.warns(UserWarning, match="large memory footprint"):
        theirs = Theirs(Identity(), splits=10)
    theirs.set_dtype(torch.float64)
    theirs.update(logits[:, None, None])
    torch.manual_seed(3)
    mean, std = theirs.compute()
    torch.manual_seed(3)  # it shuffles first
    ours = inception_score(logits[torch.randperm(203)].softmax(1))
    assert ours == pytest.approx((float(mean), float(std)), rel=1e-10)


def test_sure_and_even_is_the_number_of_classes_and_unsure_is_1() -> None:
    sure = torch.eye(5).repeat(20, 1)
    assert inception_score(sure) == pytest.approx((5, 0))
    assert inception_score(torch.full((100, 5), 0.2)) == pytest.approx((1, 0))
    assert inception_score(torch.eye(5)[:1].repeat(100, 1)) == pytest.approx((1, 0))


def test_the_metric() -> None:
    p = torch.rand(100, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    value = InceptionScore().compute(Embedded.of(p, p), Embedded.of(p))
    mean, std = inception_score(p)
    assert (value.value, value.error) == pytest.approx((mean, std / 10**0.5))
    with pytest.raises(UserError, match="at least 20 samples, and there are 19"):
        InceptionScore().compute(Embedded.of(p[:19], p[:19]), Embedded.of(p))
