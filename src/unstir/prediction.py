"""A Prediction: one belief about the data behind x_t, under every name the literature has for it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """The belief that x_t = alpha x_0 + sigma eps with these x_0 and eps.

    x_0 and eps are both kept, because getting one from the other divides by sigma or by alpha, and at one end of the process
    that is nearly zero.

    Args:
        x_t: (B, ...) where the denoiser was asked.
        x_0: (B, ...) expected data, E[x_0 | x_t].
        eps: (B, ...) expected noise, E[eps | x_t].
        alpha, sigma: scales of the process at t, broadcastable to x_t.
        variance_fraction: (B, ...) in [0, 1] where the network learns it: where between the posterior's (0) and the forward
            step's (1) log-variance the reverse step's lies (Nichol & Dhariwal 2021, eq. 15).
        score_shift: (B, ...) what guidance by a gradient added to the score, where it did. x_0 and eps hold it already; a sampler
            may weigh it by the variance of its own step instead.
    """

    x_t: Tensor
    x_0: Tensor
    eps: Tensor
    alpha: Tensor
    sigma: Tensor
    variance_fraction: Tensor | None = None
    score_shift: Tensor | None = None

    @property
    def v(self) -> Tensor:
        """The velocity of progressive distillation.

        Equation:
            v = alpha eps - sigma x_0
        Source:
            Salimans & Ho 2022, section 4, https://arxiv.org/abs/2202.00512
        """
        return self.alpha * self.eps - self.sigma * self.x_0

    @property
    def score(self) -> Tensor:
        """The gradient of the log density of x_t; undefined at sigma = 0.

        Equation:
            grad log q(x_t) = -eps / sigma
        Source:
            Song et al. 2021, eq. 7, https://arxiv.org/abs/2011.13456; Vincent 2011 (Tweedie's formula)
        """
        return -self.eps / self.sigma

    @property
    def flow(self) -> Tensor:
        """The velocity dx/dt of a rectified flow.

        Equation:
            u = eps - x_0
        Source:
            Liu, Gong & Liu 2022, eq. 1, https://arxiv.org/abs/2209.03003 (with data at t = 0)
        """
        return self.eps - self.x_0

    def with_x_0(self, x_0: Tensor) -> Prediction:
        """The same x_t explained by another x_0: eps changes with it (at sigma = 0, where x_t is x_0, it does not)."""
        ratio = torch.where(self.sigma == 0, torch.zeros_like(self.sigma), self.alpha / self.sigma)
        return replace(self, x_0=x_0, eps=self.eps + ratio * (self.x_0 - x_0))  # no change, no division

    def with_eps(self, eps: Tensor) -> Prediction:
        """The same x_t explained by other noise: x_0 changes with it (at alpha = 0, where x_t is eps, it does not)."""
        ratio = torch.where(self.alpha == 0, torch.zeros_like(self.alpha), self.sigma / self.alpha)
        return replace(self, eps=eps, x_0=self.x_0 + ratio * (self.eps - eps))

    def shift_score(self, gradient: Tensor) -> Prediction:
        """The belief once the log density of x_t is known to have another term, whose gradient (B, ...) is given.

        Equation:
            eps <- eps - sigma gradient,   x_0 <- x_0 + sigma² / alpha gradient
        Source:
            Dhariwal & Nichol 2021, section 4.2 and algorithm 2, https://arxiv.org/abs/2105.05233
        """
        shifted = self.with_eps(self.eps - self.sigma * gradient)
        return replace(shifted, score_shift=gradient if self.score_shift is None else self.score_shift + gradient)

    def detach(self) -> Prediction:
        """The same belief, without what gradients would need."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        detached: dict[str, Any] = {name: tensor.detach() for name, tensor in tensors.items() if tensor is not None}
        return Prediction(**detached)

    def extrapolate(self, other: Prediction, scale: float | Tensor) -> Prediction:
        """self + scale (other - self), for the data and the noise alike: what guidance does. Divides by nothing."""
        return replace(
            self,
            x_0=self.x_0 + scale * (other.x_0 - self.x_0),
            eps=self.eps + scale * (other.eps - self.eps),
            variance_fraction=other.variance_fraction,  # learned of the steps the conditional model takes
            score_shift=_extrapolate_shift(self.score_shift, other.score_shift, scale),
        )


def _extrapolate_shift(mine: Tensor | None, theirs: Tensor | None, scale: float | Tensor) -> Tensor | None:
    """mine + scale (theirs - mine), where either may be none at all."""
    if mine is None:
        return None if theirs is None else scale * theirs
    return mine - scale * mine if theirs is None else mine + scale * (theirs - mine)
