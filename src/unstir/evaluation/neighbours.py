"""The memorisation check: are samples nearer to the training data than other real data are?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unstir.evaluation.manifold import CHUNK, squared_distances
from unstir.evaluation.metric import Embedded, Metric, Row, Value, enough


def nearest(x: Tensor, training: Tensor, *, others: bool = False) -> tuple[Tensor, Tensor]:
    """(distance, row) of the nearest of ``training`` (M, D) for each of x (N, D); float64.

    Args:
        others: x is the training data itself, and a sample is no neighbour of its own.
    """
    mean = training.mean(0)
    a, b = x - mean, training - mean
    rows = []
    for start in range(0, len(a), CHUNK):
        d = squared_distances(a[start : start + CHUNK], b)
        if others:
            d[torch.arange(len(d)), start + torch.arange(len(d))] = math.inf
        rows.append(d.argmin(1))
    found = torch.cat(rows)
    return (a - b[found]).norm(dim=1), found  # once more from the difference: a copy's distance is exactly 0


@dataclass(frozen=True)
class NeighbourValue(Value):
    """With the pairs themselves.

    Args:
        order: samples, the most suspicious first.
        rows: the nearest training sample of each sample (not of each in ``order``).
        ratios: each sample's distance over the median distance of real data.
    """

    order: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    ratios: Tensor = field(default_factory=lambda: torch.zeros(0))


def memorisation(distances: Tensor, real: Tensor) -> tuple[float, float]:
    """(median distance of samples over the median of real data, share of samples below the real data's 1st percentile).

    For a model that has learnt the distribution and nothing else they are 1 and 1 %; for one that copies, near 0 and much more.

    Equation:
        ratio = median_s d(s) / median_r d(r),   d(x) = distance of x to the nearest training sample other than itself
    Source:
        after Meehan, Chaudhuri & Dasgupta 2020, section 2, https://arxiv.org/abs/2004.05675
    """
    middle = float(real.quantile(0.5))
    ratio = float(distances.quantile(0.5)) / middle if middle > 0 else math.nan
    return ratio, float((distances < real.quantile(0.01)).double().mean())


@dataclass(frozen=True)
class Neighbours(Metric):
    """Nearest training neighbours of all samples. The value is the ratio of median distances.

    ``compute``'s reference is the training data; distances of real data are those within it, each to the nearest other. With
    ``held_out`` given they are the held-out data's to the training data, which also notices a training set with near-duplicates.
    """

    has_floor: ClassVar[bool] = False

    def compute(self, samples: Embedded, reference: Embedded, held_out: Embedded | None = None) -> NeighbourValue:
        enough("the memorisation check", samples, reference)
        training = reference.all_vectors()
        distances, rows = nearest(samples.all_vectors(), training)
        if held_out is None:
            real, _ = nearest(training, training, others=True)
        else:
            real, _ = nearest(held_out.all_vectors(), training)
        ratio, share = memorisation(distances, real)
        n = len(distances)
        extra = {
            "closer_than_1_percent_of_real": share,
            "closer_error": math.sqrt(max(share, 0.01) * (1 - share) / n),
            "searched": len(training),
            "real": len(real),
        }
        ratios = distances / real.quantile(0.5)
        return NeighbourValue(ratio, None, extra, distances.argsort(), rows, ratios)

    def rows(self, value: Value) -> list[Row]:
        x = value.extra
        about = f"among {x['searched']:,}"
        share = "closer than 1 % of real data"
        return [
            Row("nearest-neighbour distance / real", value.value, None, about, ".3f"),
            Row(share, x["closer_than_1_percent_of_real"], x["closer_error"], about, ".2%"),
        ]
