"""Mean, standard deviation, range and gaps of an array, channel by channel, in one pass that never holds it all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unstir.data.contents import Array

CHUNK = 2**22  # numbers looked at together


@dataclass(frozen=True)
class Measure:
    """What the numbers of an array are like; all arrays (C,), over the finite numbers alone.

    Args:
        mean, std, low, high: per channel. std divides by the count, not by one less.
        not_finite: how many numbers are NaN or infinite.
        first_not_finite: the first sample that holds one, or None.
    """

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    not_finite: int = 0
    first_not_finite: int | None = None


def channels_first(x: Array, channels_last: bool, channel_axis: bool) -> Array:
    """A view (N, C, ...) of (N, ...)."""
    if not channel_axis:
        return x[:, None]
    return np.moveaxis(x, -1, 1) if channels_last else x


def measure(x: Array, rows: int | None = None) -> Measure:
    """Measures (N, C, ...), all of it, or about ``rows`` samples evenly spread over it.

    Sums are taken around the first sample's mean, so a large offset costs no digits.
    """
    step = 1 if rows is None else max(1, len(x) // rows)
    x = x[::step]
    rows_at_once = max(1, CHUNK // max(1, x[0].size))
    shape = (x.shape[1],)
    count, total, square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    not_finite, first, around = 0, None, None
    for start in range(0, len(x), rows_at_once):
        part = np.moveaxis(x[start : start + rows_at_once], 1, 0)
        part = part.reshape(len(part), -1).astype(np.float64)  # (C, numbers)
        finite = np.isfinite(part)
        if around is None:
            around = np.where(finite, part, 0).mean(axis=1)
        if not finite.all():
            bad = ~finite
            not_finite += int(bad.sum())
            row = int(np.flatnonzero(bad.any(axis=0))[0]) // (part.shape[1] // len(x[start : start + rows_at_once]))
            first = first if first is not None else (start + row) * step
        centred = np.where(finite, part - around[:, None], 0)
        count += finite.sum(axis=1)
        total += centred.sum(axis=1)
        square += (centred**2).sum(axis=1)
        low = np.minimum(low, np.where(finite, part, np.inf).min(axis=1))
        high = np.maximum(high, np.where(finite, part, -np.inf).max(axis=1))
    assert around is not None, "an empty array has nothing to measure"
    count = np.maximum(count, 1)
    shift = total / count
    std = np.sqrt(np.maximum(square / count - shift**2, 0))
    return Measure(around + shift, std, low, high, not_finite, first)
