"""Precision and recall, density and coverage: whether samples look real, and whether all that is real is there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.evaluation.metric import Embedded, Metric, Row, Value, enough

CHUNK = 1024  # rows of a distance matrix that are in memory at once


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(N, D), (M, D) float64 -> (N, M). Take a common mean off first: digits are lost in proportion to the norms."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None]
    return torch.addmm(squares, a, b.mT, alpha=-2).clamp_min_(0)


def squared_radii(x: Tensor, k: int) -> Tensor:
    """(N,) squared distance of each of x (N, D) to its k-th nearest other."""
    radii = []
    for start in range(0, len(x), CHUNK):
        d = squared_distances(x[start : start + CHUNK], x)
        d[torch.arange(len(d)), start + torch.arange(len(d))] = math.inf
        radii.append(d.kthvalue(k, dim=1).values)
    return torch.cat(radii)


@dataclass(frozen=True)
class Manifold:
    """Four fractions (density may exceed 1)."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(samples: Tensor, reference: Tensor, k: int = 3, density_k: int = 5) -> Manifold:
    """Precision, recall (by balls that reach to the k-th neighbour), density and coverage (to the density_k-th), in one pass.

    Precision and recall count the edge of a ball (<=) as their paper does, density and coverage do not (<), as their authors' code.

    Equation:
        B_k(x) = ball around x that reaches its k-th nearest neighbour in its own set;   precision = mean_s [s in some B_k(r)];
        recall = mean_r [r in some B_k(s)];   density = sum_s sum_r [s in B_5(r)] / (5 N);   coverage = mean_r [some s in B_5(r)]
    Source:
        Kynkäänniemi et al. 2019, eq. 1 and 2, https://arxiv.org/abs/1904.06991; Naeem et al. 2020, section 3, https://arxiv.org/abs/2002.09797
    """
    mean = reference.mean(0)
    s, r = samples - mean, reference - mean
    ball_r, ball_s, wide_r = squared_radii(r, k), squared_radii(s, k), squared_radii(r, density_k)
    precise, dense = 0, 0
    recalled = torch.zeros(len(r), dtype=torch.bool)
    covered = torch.zeros(len(r), dtype=torch.bool)
    for start in range(0, len(s), CHUNK):
        d = squared_distances(s[start : start + CHUNK], r)
        precise += int((d <= ball_r).any(1).sum())
        recalled |= (d <= ball_s[start : start + CHUNK, None]).any(0)
        inside = d < wide_r
        dense += int(inside.sum())
        covered |= inside.any(0)
    return Manifold(
        precise / len(s), float(recalled.double().mean()), dense / (density_k * len(s)), float(covered.double().mean())
    )


@dataclass(frozen=True)
class PrecisionRecall(Metric):
    """Precision, recall, density and coverage, of equally many samples and reference samples.

    All four depend on both counts, so the larger set gives only its first samples (which are in random order). Their errors are
    those of counting: the balls are taken as given.
    """

    k: int = 3
    """Neighbours of precision and recall."""
    density_k: int = 5
    """Neighbours of density and coverage."""

    def compute(self, samples: Embedded, reference: Embedded) -> Value:
        enough("precision and recall", samples, reference, max(self.k, self.density_k) + 1)
        n = min(samples.count, reference.count)
        found = manifold(samples.all_vectors()[:n], reference.all_vectors()[:n], self.k, self.density_k)
        counted = {"precision": found.precision, "recall": found.recall, "coverage": found.coverage}
        errors = {f"{name}_error": math.sqrt(p * (1 - p) / n) for name, p in counted.items()}
        extra = {**vars(found), **errors, "count": n, "k": self.k, "density_k": self.density_k}
        return Value(found.precision, errors["precision_error"], extra)

    def rows(self, value: Value) -> list[Row]:
        n, x = value.extra["count"], value.extra
        return [
            Row(name, x[name], x.get(f"{name}_error"), f"k={k}, n={n}", ".3f")
            for name, k in (
                ("precision", self.k),
                ("recall", self.k),
                ("density", self.density_k),
                ("coverage", self.density_k),
            )
        ]
