"""How much each noise level counts: weights on the squared error, as functions of the signal-to-noise ratio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Weight(ABC):
    """A weight on the squared error in the objective's space. A new one is a frozen dataclass and a line in ``WEIGHTS``."""

    @abstractmethod
    def __call__(self, log_snr: Tensor) -> Tensor:
        """(B,) log-SNR -> (B,) weight."""


@dataclass(frozen=True)
class Constant(Weight):
    """All the same; in the space "eps" the "simple" loss of DDPM.

    Equation:
        w = 1
    Source:
        Ho, Jain & Abbeel 2020, eq. 14, https://arxiv.org/abs/2006.11239
    """

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)


@dataclass(frozen=True)
class P2(Weight):
    """Perception-prioritised: less for the last, imperceptible clean-up. For the space "eps".

    Equation:
        w = 1 / (k + snr)^gamma
    Source:
        Choi et al. 2022, eq. 8, https://arxiv.org/abs/2204.00227
    """

    k: float = 1.0
    """Keeps the weight finite at snr = 0."""
    gamma: float = 1.0
    """0 is the simple loss; the paper recommends 0.5 to 1."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return (self.k + log_snr.exp()) ** -self.gamma


@dataclass(frozen=True)
class MinSNR(Weight):
    """The signal-to-noise ratio, capped. For the space "x_0".

    Equation:
        w = min(snr, gamma)
    Source:
        Hang et al. 2023, section 3.4, https://arxiv.org/abs/2303.09556
    """

    gamma: float = 5.0
    """The cap."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma)


WEIGHTS: dict[str, type[Weight]] = {"constant": Constant, "p2": P2, "min-snr": MinSNR}
