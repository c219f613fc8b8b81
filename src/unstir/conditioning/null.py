"""The null of a condition: what an unconditional model is asked for.

One rule for all conditions, so that dropping them out in training (an Objective's task) and leaving them out in guidance
(a Denoiser's) need no knowledge of what they are: the null of an integer is -1, the null of a float is NaN ("not known",
which is also what a gap in a table of numbers means). A condition that is absent altogether is null for every sample.
"""

from __future__ import annotations

import torch
from torch import Tensor


def null_like(value: Tensor) -> Tensor:
    """The null condition, in the shape of ``value``."""
    return torch.full_like(value, float("nan") if value.is_floating_point() else -1)


def is_null(value: Tensor) -> Tensor:
    """(B, ...) -> (B,) bool: which samples' condition is null (every entry of it)."""
    missing = value.isnan() if value.is_floating_point() else value == -1
    return missing.flatten(1).all(dim=1) if missing.ndim > 1 else missing


def drop(value: Tensor, dropped: Tensor) -> Tensor:
    """Replaces the condition of the samples where ``dropped`` (B,) is true by its null."""
    return torch.where(dropped.reshape(-1, *[1] * (value.ndim - 1)), null_like(value), value)
