"""Fréchet distance: how far apart two sets lie, by their means and covariances in a feature space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar

import torch
from torch import Tensor

from unstir.evaluation.metric import Embedded, Metric, Row, Value, enough
from unstir.evaluation.moments import Moments


def square_root(covariance: Tensor) -> Tensor:
    """L (D, r) with L Lᵀ = covariance (D, D), r its numerical rank.

    Eigenvalues below D times the machine epsilon of the largest are rounding errors of zeros; a root would make 1e-16 into 1e-8.
    """
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1].clamp_min(0)
    root: Tensor = vectors[:, kept] * values[kept].sqrt()
    return root


def frechet_to(reference: Moments) -> Callable[[Moments], float]:
    """The distance to a reference as a function, with what depends on the reference alone done once.

    Covariances need not have full rank: with n <= D vectors they have rank n - 1 at most, and the distance is then exactly that of the
    degenerate Gaussians. (It is a bad estimate of the distance of the distributions, for which the report warns.)

    Equation:
        d² = |m_1 - m_2|² + tr(C_1 + C_2 - 2 (C_2^½ C_1 C_2^½)^½);   with L Lᵀ = C_2 the last trace is that of (Lᵀ C_1 L)^½
    Source:
        Dowson & Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X; Heusel et al. 2017, eq. 6, https://arxiv.org/abs/1706.08500
    """
    covariance = reference.covariance
    root, trace = square_root(covariance), covariance.trace()

    def distance(samples: Moments) -> float:
        inner = torch.linalg.eigvalsh(root.mT @ samples.covariance @ root)
        floor = len(inner) * torch.finfo(inner.dtype).eps * inner[-1:].clamp_min(0)
        cross = torch.where(inner > floor, inner, 0).sqrt().sum()
        means = (samples.mean - reference.mean).square().sum()
        # never below 0 but by rounding
        return max(float(means + trace + samples.covariance.trace() - 2 * cross), 0.0)

    return distance


def frechet_distance(samples: Moments, reference: Moments) -> float:
    """The (squared) Fréchet distance of two Gaussians with these moments; see ``frechet_to``."""
    return frechet_to(reference)(samples)


def jackknife(blocks: Sequence[Moments], statistic: Callable[[Moments], float]) -> float | None:
    """Standard error of a statistic, from its values with each of K blocks left out.

    Chosen over the bootstrap, whose repeated samples lower the rank of the covariance and so move the distance itself by more than
    its spread, and over two halves, whose one difference is a spread known to within a factor of two at best. Leaving blocks out
    changes n by 1/K for all alike. It does not understate: its expected square is at least the variance of the statistic on n (1 - 1/K)
    samples (Efron & Stein 1981), for any symmetric statistic.

    Equation:
        error² = (K - 1) / K · sum over k of (d_k - mean d)²,   d_k the statistic without block k
    Source:
        Efron & Stein 1981, https://doi.org/10.1214/aos/1176345462; Efron & Hastie 2016, section 10.1
    """
    full = [block for block in blocks if block.count]
    k = len(full)
    if k < 2 or sum(b.count for b in full) - max(b.count for b in full) < 2:
        return None
    without = [statistic(reduce(add, full[:i] + full[i + 1 :])) for i in range(k)]
    spread = torch.tensor(without, dtype=torch.float64)
    return math.sqrt((k - 1) / k * float((spread - spread.mean()).square().sum()))


@dataclass(frozen=True)
class Frechet(Metric):
    """Fréchet distance with its error over the draw of the samples; the reference stays as it is."""

    needs_vectors: ClassVar[bool] = False

    def compute(self, samples: Embedded, reference: Embedded) -> Value:
        enough("the Fréchet distance", samples, reference)
        distance = frechet_to(reference.moments)
        return Value(distance(samples.moments), jackknife(samples.blocks, distance))

    def rows(self, value: Value) -> list[Row]:
        return [Row("FD", value.value, value.error)]
