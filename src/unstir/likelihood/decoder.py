"""What the last step of a reverse chain says of the data: a probability where they are whole numbers, a density where they are not;
and the units of both."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unstir.data.spec import DataSpec

FAR = 1e4  # standard deviations: beyond any bin, and finite, so that gradients are 0 instead of NaN


class Decoder(ABC):
    """p(x_0 | mean, std) of every entry of x_0.

    The chain's own step to the data has no noise, because its posterior has none; a likelihood needs some.
    """

    @abstractmethod
    def std(self, before: Tensor, noise: Tensor) -> Tensor:
        """The standard deviation of the step to the data, of a fixed variance.

        Args:
            before: () the posterior's of the step before it.
            noise: () how much noise is left when it begins, as a part of x_t: sigma / sqrt(alpha² + sigma²).
        """

    @abstractmethod
    def log_prob(self, x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """(B, ...) log probabilities, or log densities in model units, in nats; float64."""


@dataclass(frozen=True)
class GaussianDecoder(Decoder):
    """A density, for data that are real numbers.

    Equation:
        log p(x_0 | x_1) = -(x_0 - mu)² / (2 std²) - log std - log(2 pi) / 2
    Source:
        Sohl-Dickstein et al. 2015, appendix B.2 (the last step), https://arxiv.org/abs/1503.03585
    """

    def std(self, before: Tensor, noise: Tensor) -> Tensor:
        return noise  # where a density is smooth, nothing more can be known

    def log_prob(self, x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        difference, std = (x_0 - mean).double(), std.double()
        return -0.5 * (difference / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class DiscretizedDecoder(Decoder):
    """The probability that a Gaussian gives to the bin around x_0; the first and the last bin are open to their sides, so that the
    probabilities of all values add up to 1.

    Equation:
        p(x_0 | x_1) = Phi((x_0 + w/2 - mu) / std) - Phi((x_0 - w/2 - mu) / std),   w the bins' width; +-inf beyond the edges
    Source:
        Ho, Jain & Abbeel 2020, eq. 13, https://arxiv.org/abs/2006.11239

    Args:
        width: of the bins in model units, broadcastable to a sample: 2/255 for bytes in [-1, 1].
        bounds: lowest and highest value in model units; empty where there are none.
    """

    width: Tensor
    bounds: tuple[float, ...] = (-1.0, 1.0)

    def std(self, before: Tensor, noise: Tensor) -> Tensor:
        # The papers' code takes the posterior's of the step before: whole numbers can be known better than the noise lets one see. On a
        # grid with ever finer steps that would go to 0, so the step before counts as one that halves the signal-to-noise ratio.
        return before.maximum(noise / math.sqrt(2))

    def log_prob(self, x_0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        std, half = std.double(), self.width.to(x_0.device, torch.float64) / 2
        centred = (x_0 - mean).double()
        upper, lower = (centred + half) / std, (centred - half) / std
        if self.bounds:
            upper = torch.where(x_0 + half > self.bounds[1], FAR, upper)
            lower = torch.where(x_0 - half < self.bounds[0], -FAR, lower)
        # Differences of probabilities near 1 lose their digits: beyond the mean the other tail is taken.
        flip = upper + lower > 0
        high, low = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
        log_high: Tensor = torch.special.log_ndtr(high)
        log_low: Tensor = torch.special.log_ndtr(low)
        return log_high + torch.log(-torch.expm1((log_low - log_high).clamp(max=-1e-15)))


def decoder_of(spec: DataSpec) -> Decoder:
    """Whole numbers are decoded as bins of their own width (any bit depth), everything else as a density."""
    return (
        DiscretizedDecoder(1 / per_channel(spec.scale, spec), spec.bounds) if is_discrete(spec) else GaussianDecoder()
    )


def is_discrete(spec: DataSpec) -> bool:
    """Whether the data came as whole numbers."""
    return bool(np.issubdtype(np.dtype(spec.dtype), np.integer))


def per_channel(values: tuple[float, ...], spec: DataSpec) -> Tensor:
    """One number a channel -> float64, broadcastable to a sample."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1, *[1] * spec.rank)


def log_volume(spec: DataSpec) -> float:
    """log |d(data units) / d(model units)| of a whole sample: what a density's negative logarithm grows by on the way to the data's units."""
    return float(per_channel(spec.scale, spec).log().expand(spec.shape).sum())


def dequantized_noise(spec: DataSpec) -> float:
    """The standard deviation of what ``dequantize`` adds, in model units: that of a uniform number, 1 / sqrt(12), in the data's.

    A model is to be asked for the density at this noise level. It was trained on whole numbers with Gaussian noise: with less of it, it knows
    that there is nothing between the numbers, and most of a bin is unlikely; with more, it sees less.
    """
    return math.exp(-log_volume(spec) / spec.dimensions) / math.sqrt(12)


def dequantize(x: Tensor, spec: DataSpec, u: Tensor) -> Tensor:
    """Spreads whole numbers evenly over the bins around them: x + u - 1/2 in the data's units, u uniform in [0, 1).

    The density of what comes out, in the data's units, bounds the probability of x from below on average, for any model and any
    number of bits, because the bins have width 1 there. They are centred on the numbers, where models are trained.

    Equation:
        E_u[log p(x + u - 1/2)] <= log integral p(x + u - 1/2) du = log P(x)
    Source:
        Theis, van den Oord & Bethge 2016, section 3.1, https://arxiv.org/abs/1511.01844

    Args:
        x: (B, *shape) in model units. u: of the same shape.
    """
    return x + ((u - 0.5) / per_channel(spec.scale, spec).to(u)).to(x)
