"""Kernel distance: the squared maximum mean discrepancy under a cubic kernel. Unbiased at every sample size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.evaluation.metric import Embedded, Metric, Row, Value, enough

CHUNK = 1024  # rows of a kernel matrix that are in memory at once


def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(N, D), (M, D) -> (N, M).

    Equation:
        k(x, y) = (xᵀ y / D + 1)³
    Source:
        Binkowski et al. 2018, https://arxiv.org/abs/1801.01401
    """
    base = (x @ y.mT).div_(x.shape[1]).add_(1)
    return base.square().mul_(base)


@dataclass(frozen=True)
class _Gram:
    """What one pass over a kernel matrix leaves.

    Args:
        rows, columns: (N,), (M,) sums.
        squares: the sum of all squared entries.
        diagonal: (N,) of a set's own kernel matrix.
    """

    rows: Tensor
    columns: Tensor
    squares: float
    diagonal: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Gram:
        rows, squares, columns = [], 0.0, x.new_zeros(len(y))
        for start in range(0, len(x), CHUNK):
            k = cubic_kernel(x[start : start + CHUNK], y)
            rows.append(k.sum(1))
            columns += k.sum(0)
            squares += float(k.square().sum())
        return cls(torch.cat(rows), columns, squares, (x.square().sum(1) / x.shape[1] + 1) ** 3)

    def own_mean(self) -> float:
        """Mean of k(x_i, x_j) over i != j."""
        n = len(self.rows)
        return float((self.rows - self.diagonal).sum()) / (n * (n - 1))

    def own_spread(self) -> float:
        """Estimate of E <a, a'>², a and a' being two samples' centred features: the mean over i != j of the squared doubly centred entries."""
        n = len(self.rows)
        means = self.rows / n
        grand = means.mean()
        every = self.squares - 2 * n * float(means.square().sum()) + n * n * float(grand.square())
        diagonal = float((self.diagonal - 2 * means + grand).square().sum())
        return max(every - diagonal, 0.0) / (n * (n - 1))

    def cross_spread(self) -> float:
        """Estimate of E <a, b>² for centred features a and b of the two sets."""
        n, m = len(self.rows), len(self.columns)
        by_row, by_column = self.rows / m, self.columns / n
        sums = m * float(by_row.square().sum()) + n * float(by_column.square().sum())
        return max(self.squares - sums + n * m * float(by_row.mean().square()), 0.0) / (n * m)


def kernel_distance(x: Tensor, y: Tensor) -> tuple[float, float]:
    """The unbiased squared MMD of all of x (N, D) and y (M, D), and its standard error.

    The error is that of the U-statistic over the draw of both sets. Its first-order part comes from the witness function w, whose
    own estimation noise is known in expectation, and taken off: what is left is right both where the distributions differ
    (the first-order part rules) and where they do not (only the second-order part is there). It never falls below the latter.

    Equation:
        KD = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean k(x_i, y_j)
        error² = 4 var w(x)/N + 4 var w(y)/M - s,   s = 2 c_xx/(N(N-1)) + 2 c_yy/(M(M-1)) + 4 c_xy/(NM), at least s;
        w(x_i) = mean_{j≠i} k(x_i, x_j) - mean_j k(x_i, y_j),   c = mean squared entry of the centred kernel matrices
    Source:
        Binkowski et al. 2018, https://arxiv.org/abs/1801.01401; Gretton et al. 2012, lemma 6, https://jmlr.org/papers/v13/gretton12a.html;
        the error by Hoeffding's decomposition, as in Sutherland & Deka 2019, https://arxiv.org/abs/1906.02104
    """
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    xx, yy, xy = _Gram.of(x, x), _Gram.of(y, y), _Gram.of(x, y)
    value = xx.own_mean() + yy.own_mean() - 2 * float(xy.rows.sum()) / (n * m)
    witness_x = (xx.rows - xx.diagonal) / (n - 1) - xy.rows / m
    witness_y = (yy.rows - yy.diagonal) / (m - 1) - xy.columns / n
    second = 2 * xx.own_spread() / (n * (n - 1)) + 2 * yy.own_spread() / (m * (m - 1)) + 4 * xy.cross_spread() / (n * m)
    first = 4 * float(witness_x.var()) / n + 4 * float(witness_y.var()) / m
    return value, math.sqrt(max(first - second, second))


def kernel_distance_of_subsets(x: Tensor, y: Tensor, subsets: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """The field's form (KID as most programs print it): mean and spread of the unbiased squared MMD over subsets of equal size.

    The spread is that of single subsets, and not the error of the mean: subsets overlap.

    Args:
        subsets: (rows of x, rows of y) of each.
    """
    values = []
    for rows, others in subsets:
        a, b = x[rows].double(), y[others].double()
        own = sum(
            float(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))
            for k in (cubic_kernel(a, a), cubic_kernel(b, b))
        )
        values.append(own - 2 * float(cubic_kernel(a, b).mean()))
    spread = torch.tensor(values, dtype=torch.float64)
    return float(spread.mean()), float(spread.std(correction=0))


@dataclass(frozen=True)
class KernelDistance(Metric):
    """Kernel distance of all samples to all of the reference, with its standard error."""

    def compute(self, samples: Embedded, reference: Embedded) -> Value:
        enough("the kernel distance", samples, reference, 4)
        return Value(*kernel_distance(samples.all_vectors(), reference.all_vectors()))

    def rows(self, value: Value) -> list[Row]:
        return [Row("KD", value.value, value.error)]
