"""Keeping the believed x_0 where data can be."""

from __future__ import annotations

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
