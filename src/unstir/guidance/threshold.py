"""Keeping the believed x_0 where data can be."""

from __future__ import annotations

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.prediction import Prediction


class ClipX0(Denoiser):
    """Clips the believed x_0 to the range of the data, and changes eps to fit.

    Equation:
        x_0 <- clip(x_0, low, high),   eps <- (x_t - alpha x_0) / sigma
    Source:
        Ho, Jain & Abbeel 2020, the released code (clip_denoised); Saharia et al. 2022, section 2.3 ("static thresholding"), https://arxiv.org/abs/2205.11487
    """

    def __init__(self, denoiser: Denoiser, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.low = low
        self.high = high

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        prediction = self.denoiser(x_t, t, **cond)
        return prediction.with_x_0(prediction.x_0.clamp(self.low, self.high))


def percentile(x: Tensor, p: float) -> Tensor:
    """(B, ...) -> (B, 1...) the p-th percentile of each sample's entries, between two of them in proportion."""
    ordered = x.flatten(1).sort(1).values  # torch.quantile does not take as many numbers as a batch of pictures has
    place = p / 100 * (ordered.shape[1] - 1)
    below = min(int(place), max(ordered.shape[1] - 2, 0))
    above = min(below + 1, ordered.shape[1] - 1)
    value = torch.lerp(ordered[:, below], ordered[:, above], place - below)
    return value.reshape(-1, *[1] * (x.ndim - 1))


class DynamicThreshold(Denoiser):
    """Where a sample's belief leaves the range of the data, shrinks it: saturated pixels move inwards, and large guidance scales
    stay natural. Within the range it changes nothing; at percentile 100 it only shrinks, below it clips the rest.

    Equation:
        s = max(percentile of |x_0|, 1),   x_0 <- clip(x_0, -s, s) / s,   in units in which the data's range is -1 to 1
    Source:
        Saharia et al. 2022, section 2.3 ("dynamic thresholding"), https://arxiv.org/abs/2205.11487

    Args:
        denoiser: with its guidance around it.
        percentile: 0 to 100, of the absolute entries of each sample.
        low, high: range of the data.
    """

    def __init__(self, denoiser: Denoiser, percentile: float = 99.5, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.percentile = percentile
        self.low = low
        self.high = high

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        prediction = self.denoiser(x_t, t, **cond)
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        x_0 = (prediction.x_0 - middle) / half
        s = percentile(x_0.abs(), self.percentile).clamp(min=1)
        return prediction.with_x_0(middle + half * x_0.clamp(-s, s) / s)
