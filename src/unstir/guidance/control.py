"""How much a control counts."""

from __future__ import annotations

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.networks.controlnet import STRENGTH
from unstir.prediction import Prediction


class ControlStrength(Denoiser):
    """Tells the ControlNet inside how much what it adds to its base counts: 1 as in training, 0 not at all, more to insist.

    The strength travels with each call, beside the conditions: nothing about the network changes. It is no condition (guidance must
    not replace it by a null), so this goes around the model itself, inside of all guidance.

    Equation:
        h + strength · zero_conv(control)   for each feature h that the base's way up is shown
    Source:
        Zhang, Rao & Agrawala 2023, section 3.2 and eq. 2 (strength 1), https://arxiv.org/abs/2302.05543
    """

    def __init__(self, denoiser: Denoiser, strength: float) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.strength = strength

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        strength = torch.full((len(x_t),), self.strength, device=x_t.device)
        return self.denoiser(x_t, t, **cond, **{STRENGTH: strength})
