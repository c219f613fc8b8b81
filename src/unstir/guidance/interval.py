"""At which noise levels to guide."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unstir.process import Process, broadcast

Interval = tuple[float, float]
"""(lowest, highest) noise level sigma / alpha."""
EVERYWHERE: Interval = (0.0, math.inf)


def scale_within(
    process: Process, t: Tensor, scale: float | Tensor, interval: Interval, like: Tensor, outside: float
) -> Tensor | None:
    """A guidance scale, ready to be multiplied into ``like`` (B, ...); None where no sample of the batch is guided.

    Guidance at high noise costs variety, and at low noise there is nothing left to decide.

    Equation:
        w(t) = scale where lowest <= sigma / alpha <= highest, else the scale at which guidance is off
    Source:
        Kynkäänniemi et al. 2024, section 3, https://arxiv.org/abs/2404.07724

    Args:
        scale: one for all, or (B,) float64.
        outside: the scale at which this guidance is off.
    """
    ratio = process.sigma(t) / process.alpha(t)
    inside = (ratio >= interval[0]) & (ratio <= interval[1])
    scales = torch.as_tensor(scale, dtype=ratio.dtype)  # in float64, like t
    if not bool((inside & (scales != outside)).any()):
        return None
    return broadcast(torch.where(inside, scales, scales.new_tensor(outside)), like)
