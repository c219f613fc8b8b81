"""Inception score: whether a classifier is sure of each sample, and of another class from sample to sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.evaluation.metric import Embedded, Metric, Row, Value


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation of the score over consecutive splits of the samples.

    Args:
        probabilities: (N, K) of classes.
        splits: how many; at most N.

    Equation:
        IS = exp( E_x KL( p(y|x) || p(y) ) ),   p(y) the mean over the split
    Source:
        Salimans et al. 2016, section 4, https://arxiv.org/abs/1606.03498
    """
    p = probabilities.double()
    scores = torch.stack(
        [
            (torch.special.entr(part.mean(0)).sum() - torch.special.entr(part).sum(1).mean()).exp()
            for part in p.chunk(splits)
        ]
    )  # KL to the mean = entropy of the mean - mean entropy
    return float(scores.mean()), float(scores.std()) if len(scores) > 1 else math.nan


@dataclass(frozen=True)
class InceptionScore(Metric):
    """The score over ``splits`` parts; its error is the parts' standard deviation over the root of their number.

    It never looks at the reference; real data's own score stands beside it.
    """

    needs_vectors: ClassVar[bool] = False
    needs_probabilities: ClassVar[bool] = True

    splits: int = 10
    """Parts, each with a marginal of its own; the field uses 10."""

    def compute(self, samples: Embedded, reference: Embedded) -> Value:
        assert samples.probabilities is not None
        if samples.count < 2 * self.splits:
            raise UserError(
                f"the Inception score needs at least {2 * self.splits} samples, and there are {samples.count}"
            )
        mean, std = inception_score(samples.probabilities, self.splits)
        parts = -(
            -samples.count // -(-samples.count // self.splits)
        )  # equal but for the last, so perhaps fewer than asked for
        return Value(mean, std / math.sqrt(parts), {"std": std, "splits": parts})

    def rows(self, value: Value) -> list[Row]:
        return [Row("IS", value.value, value.error)]
