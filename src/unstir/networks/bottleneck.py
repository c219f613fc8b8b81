"""What keeps an autoencoder's latents small and in order: between its encoder and its decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unstir.errors import UserError

LOWEST, HIGHEST = -30.0, 20.0
"""Between which the logarithm of the posterior's variance is kept, as in the paper's code."""

START = -5.0
"""Added to it, so that training begins with latents that are drawn close to their mean."""


class Squeezed(NamedTuple):
    """What came through a bottleneck in training.

    Args:
        z: (B, c, ...) what the decoder gets.
        penalty: (B,) to be made small, as a mean over the data's numbers or over the latents'.
        perplexity: () how many codes of a codebook the batch used, as if evenly; 0 without one.
    """

    z: Tensor
    penalty: Tensor
    perplexity: Tensor


class Bottleneck(nn.Module, ABC):
    """The module of a ``BottleneckConfig``.

    Attributes:
        inputs: channels that it needs of the encoder.
        weight: of its penalty in the loss.
        called: what the penalty is, for the record.
        counts: whether there are codes whose use can be counted.
    """

    inputs: int
    weight: float
    called: str
    counts: bool = False

    @abstractmethod
    def forward(self, h: Tensor, noise: Tensor, numbers: int) -> Squeezed:
        """For training.

        Args:
            h: (B, inputs, ...) of the encoder.
            noise: (B, c, ...) standard normal.
            numbers: of one sample of the data.
        """

    @abstractmethod
    def encode(self, h: Tensor) -> Tensor:
        """(B, inputs, ...) of the encoder -> the latents (B, c, ...), without chance."""

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, c, ...), of the encoder or of somebody who dreamt them up -> what the decoder knows; here the same."""
        return z

    def follow(self) -> None:
        """Called after each optimiser step, for what learns in another way than by gradients; here nothing does."""


class BottleneckConfig(ABC):
    """What regularises the latents. A new one is a frozen dataclass and a line in ``BOTTLENECKS``."""

    @abstractmethod
    def build(self, latent_channels: int) -> Bottleneck:
        """A fresh one."""


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(B, ...) of a Gaussian with a diagonal covariance from the standard one -> (B,), in nats, summed.

    Equation:
        KL(N(mean, s²) || N(0, I)) = 1/2 sum (mean² + s² - 1 - log s²)
    Source:
        Kingma & Welling 2014, appendix B, https://arxiv.org/abs/1312.6114
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2


class Gaussian(Bottleneck):
    """The encoder gives mean and log-variance of each latent; training draws from that Gaussian, everything else takes its mean.

    Equation:
        z = mean + s eps,   penalty = KL(N(mean, s²) || N(0, I)) / numbers
    Source:
        Kingma & Welling 2014, section 2.4, https://arxiv.org/abs/1312.6114; so lightly weighted: Rombach et al. 2022, section 3.1, https://arxiv.org/abs/2112.10752
    """

    called = "kl"

    def __init__(self, latent_channels: int, weight: float) -> None:
        super().__init__()
        self.inputs = 2 * latent_channels
        self.weight = weight

    def forward(self, h: Tensor, noise: Tensor, numbers: int) -> Squeezed:
        mean, log_variance = h.to(noise.dtype).chunk(2, 1)  # (B, c, ...) each
        log_variance = (log_variance + START).clamp(LOWEST, HIGHEST)  # (B, c, ...)
        z = mean + (log_variance / 2).exp() * noise  # (B, c, ...)
        return Squeezed(z, kl_divergence(mean, log_variance) / numbers, torch.zeros((), device=h.device))

    def encode(self, h: Tensor) -> Tensor:
        return h.chunk(2, 1)[0]  # (B, c, ...)


@dataclass(frozen=True)
class KL(BottleneckConfig):
    """Latents of about unit variance: a Gaussian for each, and a light pull towards the standard one."""

    weight: float = 1e-6
    """Of the Kullback-Leibler divergence, summed over the latents, beside the distance summed over the data's numbers (as in the paper)."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise UserError(f"the weight of the KL divergence must be at least 0, not {self.weight}")

    def build(self, latent_channels: int) -> Gaussian:
        return Gaussian(latent_channels, self.weight)
