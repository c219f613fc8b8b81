"""Guidance by a bad version of the model itself, as a Denoiser around two Denoisers."""

from __future__ import annotations

from torch import Tensor

from unstir.denoiser import ChangeProcess, Denoiser
from unstir.guidance.interval import EVERYWHERE, Interval, scale_within
from unstir.guidance.rescale import restore_std
from unstir.prediction import Prediction


class AutoGuidance(Denoiser):
    """Moves the belief further away from that of a worse model: smaller, or trained for less long, and otherwise alike.

    Both make the same kind of mistakes, the worse one larger ones, so that their difference points away from the mistakes. It needs
    no condition, and costs less variety than classifier-free guidance, which is the case where the worse model is the
    unconditional one. Scale 1 is off.

    Equation:
        bad + scale (good - bad)
    Source:
        Karras et al. 2024, "Guiding a diffusion model with a bad version of itself", sections 2 and 4, https://arxiv.org/abs/2406.02507

    Args:
        denoiser: the good one.
        bad: the worse one; under another process it is asked at the same log-SNR.
        scale: guidance scale.
        interval: (lowest, highest) noise level sigma / alpha at which to guide.
        rescale: how much of the contrast that guidance adds is taken back, 0 to 1 (``restore_std``).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        bad: Denoiser,
        scale: float,
        interval: Interval = EVERYWHERE,
        *,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.bad = bad if bad.process == denoiser.process else ChangeProcess(bad, denoiser.process)
        self.scale = scale
        self.interval = interval
        self.rescale = rescale

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        good = self.denoiser(x_t, t, **cond)
        scale = scale_within(self.process, t, self.scale, self.interval, x_t, outside=1.0)
        if scale is None:
            return good
        return restore_std(self.bad(x_t, t, **cond).extrapolate(good, scale), good, self.rescale)
