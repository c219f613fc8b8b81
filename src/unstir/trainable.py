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
        fits_to: the computed conditions that ``fit`` must be given.
    """

    network: nn.Module
    autocast: torch.dtype | None
    fits_to: tuple[str, ...] = ()

    def fit(self, x_0: Tensor, **cond: Tensor) -> None:
        """Takes what needs no training, before it begins, from samples (N, *shape) and the conditions of ``fits_to``, (N, ...) each;
        here nothing."""
