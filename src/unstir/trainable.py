"""What a recipe trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Trainable(nn.Module):
    """A network and what its output means: a denoiser, a noisy classifier, ... All that training asks of a module is here.

    Attributes:
        network: the part that has the weights and computes in tensors alone, so that it can be compiled and shared out.
        autocast: the type of the network's arithmetic where it is not that of its weights (bfloat16, say); everything around
            the network keeps the precision of its input.
    """

    network: nn.Module
    autocast: torch.dtype | None

    def fit(self, x_0: Tensor) -> None:
        """Takes from samples (N, *shape) what needs no training, before it begins; here nothing."""
