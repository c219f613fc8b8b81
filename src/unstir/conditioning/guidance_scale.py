"""The guidance scale as an input of the network: how a model is told it that has learned to be guided, and needs no second evaluation.

It travels beside the conditions under one name. Guidance around a model takes it as it is (``ClassifierFreeGuidance``); a network that
was trained with it sees it in units of the range it was trained on (``ScaleInput``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstir.data.spec import Condition

GUIDANCE_SCALE = "guidance_scale"


def scale_condition(low: float, high: float) -> Condition:
    """What a network is told that was trained with the guidance scales from low to high: it sees them between -1 and 1."""
    return Condition("vector", 1, ("scale",), offset=((low + high) / 2,), scale=((high - low) / 2,))


def scale_range(condition: Condition) -> tuple[float, float]:
    """The inverse: (lowest, highest) guidance scale that such a network was trained with."""
    (middle,), (half,) = condition.offset, condition.scale
    return middle - half, middle + half


def as_told(condition: Condition, scale: Tensor, like: Tensor) -> Tensor:
    """Guidance scales (B,) -> (B, 1) float32 as the network sees them, where ``like`` is."""
    return condition.to_model(scale.unsqueeze(1)).to(torch.float32).to(like.device)  # not every device has float64
