"""How much each noise level counts: weights on the squared error, as functions of the signal-to-noise ratio.

A weight belongs to the space in which its paper measures the error; each says which. In another space it is another weight: an error
of eps is snr times that of x_0, one of v (snr + 1) times (``MinSNR`` is given in all three). What counts in the end is the weight
times the density with which ``times`` trains a noise level.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstir.denoiser import C_NOISE_LIMIT
from unstir.objectives.objective import Companion


class Weight(ABC):
    """A weight on the squared error in the objective's space. A new one is a frozen dataclass and a line in ``WEIGHTS``."""

    @abstractmethod
    def __call__(self, log_snr: Tensor) -> Tensor:
        """(B,) log-SNR -> (B,) weight."""

    def companion(self) -> Companion | None:
        """What is learned of the weight itself, where anything is."""
        return None

    def weigh(self, error: Tensor, log_snr: Tensor, companion: Companion | None) -> Tensor:
        """(B,) squared errors at (B,) log-SNR -> (B,) losses."""
        return self(log_snr).to(error.dtype).to(error.device) * error


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
    """The signal-to-noise ratio, capped. For the space "x_0"; the same loss in the space "eps" weighs min(snr, gamma) / snr, and in
    the space "v" of a variance-preserving process min(snr, gamma) / (snr + 1).

    Equation:
        w = min(snr, gamma)
    Source:
        Hang et al. 2023, section 3.4, https://arxiv.org/abs/2303.09556
    """

    gamma: float = 5.0
    """The cap."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma)


@dataclass(frozen=True)
class EDMWeight(Weight):
    """EDM's lambda, which makes the effective weight of the network's own output 1. For the space "x_0"; in the space "F" of an
    edm-parameterised network it is ``Constant``.

    Equation:
        w = (sigma² + sigma_data²) / (sigma sigma_data)² = snr + 1 / sigma_data²,   sigma = sigma_t / alpha_t
    Source:
        Karras, Aittala, Aila & Laine 2022, table 1 (loss weighting), https://arxiv.org/abs/2206.00364
    """

    sigma_data: float = 0.5
    """Standard deviation of the data."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        # Nearer to the data networks cannot tell noise levels apart, and at the data this would be infinite.
        return log_snr.clamp(max=8 * C_NOISE_LIMIT).exp() + self.sigma_data**-2


@dataclass(frozen=True)
class TruncatedSNR(Weight):
    """The signal-to-noise ratio, but never less than 1: what a student needs, whose first steps are at nothing but noise. For the
    space "x_0", where it is the larger one of the errors of x_0 and eps.

    Equation:
        w = max(snr, 1),   that is   max(||x_0 - x_0'||², ||eps - eps'||²)
    Source:
        Salimans & Ho 2022, section 4 ("truncated SNR"), https://arxiv.org/abs/2202.00512
    """

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.clamp(min=0, max=8 * C_NOISE_LIMIT).exp()


@dataclass(frozen=True)
class SNRPlusOne(Weight):
    """The signal-to-noise ratio and 1. For the space "x_0"; of a variance-preserving process it is ``Constant`` in the space "v".

    Equation:
        w = snr + 1
    Source:
        Salimans & Ho 2022, section 4 ("SNR+1"), https://arxiv.org/abs/2202.00512
    """

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.clamp(max=8 * C_NOISE_LIMIT).exp() + 1


@dataclass(frozen=True)
class SigmoidWeight(Weight):
    """A step from noise, which counts fully, to detail, which counts less and less. For the space "eps".

    The papers mean it at uniform log-SNR, and so multiply by -d log_snr / dt where t is uniform; here ``times`` stays what it is.

    Equation:
        w = sigmoid(bias - log_snr)
    Source:
        Kingma & Gao 2023 (sigmoid weighting), https://arxiv.org/abs/2303.00848; Hoogeboom et al. 2024 (sigmoid loss), https://arxiv.org/abs/2410.19324
    """

    bias: float = -1.0
    """Log-SNR at which the weight is one half."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(self.bias - log_snr)


class Uncertainty(Companion):
    """u(c_noise): how uncertain the network is at a noise level, as a log variance. Random Fourier features and one linear layer that
    begins at 0.

    Args:
        features: their number.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(features, generator=generator))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=generator))
        self.weights = nn.Parameter(torch.zeros(features))

    def forward(self, log_snr: Tensor) -> Tensor:
        """(B,) log-SNR -> (B,) u."""
        c_noise = (-log_snr / 8).clamp(-C_NOISE_LIMIT, C_NOISE_LIMIT).to(self.weights.device, self.weights.dtype)
        waves = (c_noise[:, None] * self.frequencies + self.phases).cos()  # (B, features)
        u: Tensor = waves @ self.weights * math.sqrt(2 / len(self.weights))  # (B,)
        return u


@dataclass(frozen=True)
class LearnedUncertainty(Weight):
    """Every noise level weighs as much as every other: its error is measured against a variance that is learned along. For the space
    "F". Where nothing trains, u = 0.

    Equation:
        L = error / exp(u) + u,   u = u(c_noise) learned, so that exp(u) comes near the error's mean at that noise level
    Source:
        Karras et al. 2024, eq. 21 and appendix (eq. 75: the features), https://arxiv.org/abs/2312.02696; Kendall, Gal & Cipolla 2018
    """

    features: int = 128
    """Fourier features of c_noise that u is linear in."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)

    def companion(self) -> Companion | None:
        return Uncertainty(self.features)

    def weigh(self, error: Tensor, log_snr: Tensor, companion: Companion | None) -> Tensor:
        if companion is None:
            return error
        u: Tensor = companion(log_snr).to(error.dtype)
        return error * (-u).exp() + u


WEIGHTS: dict[str, type[Weight]] = {
    "constant": Constant,
    "p2": P2,
    "min-snr": MinSNR,
    "edm": EDMWeight,
    "truncated-snr": TruncatedSNR,
    "snr-plus-one": SNRPlusOne,
    "sigmoid": SigmoidWeight,
    "uncertainty": LearnedUncertainty,
}
