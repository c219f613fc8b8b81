"""The running average of the weights. Averaged weights give better samples than the last ones, because the last ones still carry
the noise of the last few batches; sampling and evaluation use the average, training goes on with the weights themselves.

Parameters only: buffers (BatchNorm's statistics, tables) are copied, never averaged.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from unstir.errors import UserError


class Average(ABC):
    """How far back the average reaches. A new one is a frozen dataclass and a line in ``AVERAGES``."""

    @abstractmethod
    def decay(self, step: int) -> float:
        """The weight of the old average at step 1, 2, ...; the new weights get the rest."""


@dataclass(frozen=True)
class PowerAverage(Average):
    """An average that grows with training, so that it fits a run of any length and needs no warm-up.

    Equation:
        decay_t = (1 - 1/t)^(gamma + 1),   width = sqrt((gamma + 1) / ((gamma + 2)² (gamma + 3)))
    Source:
        Karras et al. 2024, section 3.1 and appendix C, https://arxiv.org/abs/2312.02696
    """

    width: float = 0.1
    """Standard deviation of the average's reach, as a fraction of the training so far."""

    def __post_init__(self) -> None:
        if not 0.005 <= self.width <= 0.28:  # 0.2887 is the mean of all weights ever, which no gamma >= 0 exceeds
            raise UserError(f"the power average's width must lie between 0.005 and 0.28, not {self.width}")

    def decay(self, step: int) -> float:
        roots = np.roots([1, 7, 16 - self.width**-2, 12 - self.width**-2])
        gamma = max(root.real for root in roots if abs(root.imag) < 1e-9)
        return float((1 - 1 / step) ** (gamma + 1))


@dataclass(frozen=True)
class ExponentialAverage(Average):
    """The classic one: a fixed memory, shorter during warm-up so that the first, random weights are soon forgotten.

    Equation:
        decay_t = min(decay, (1 + t) / (10 + t))
    Source:
        Ho, Jain & Abbeel 2020, section 4 (0.9999), https://arxiv.org/abs/2006.11239; warm-up as in TensorFlow's ExponentialMovingAverage
    """

    rate: float = 0.9999
    """The decay after warm-up."""

    def decay(self, step: int) -> float:
        return min(self.rate, (1 + step) / (10 + step))


AVERAGES: dict[str, type[Average]] = {"power": PowerAverage, "exponential": ExponentialAverage}


class AveragedModel(nn.Module):
    """A copy of a module whose parameters follow the original's on average."""

    def __init__(self, module: nn.Module, average: Average) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.average = average

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Takes in the weights after optimiser step ``step`` (1, 2, ...). Frozen ones are left as they are, to the bit."""
        decay = self.average.decay(step)
        assert math.isfinite(decay)
        pairs = zip(self.module.parameters(), module.parameters(), strict=True)
        mine, theirs = zip(*(pair for pair in pairs if pair[1].requires_grad), strict=True)
        torch._foreach_lerp_(list(mine), list(theirs), 1 - decay)
        for ours, new in zip(self.module.buffers(), module.buffers(), strict=True):
            ours.copy_(new)
