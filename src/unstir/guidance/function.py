"""Guidance by the gradient of any function: what a classifier, CLIP or a measurement wants of the sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.guidance.interval import EVERYWHERE, Interval, scale_within
from unstir.prediction import Prediction

LossFunction = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
"""(x (B, ...), t () or (B,), conditions by name) -> (B,), to be made small; each sample's is its own affair."""
LogProb = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
"""(x_t (B, ...), t () or (B,), conditions by name) -> (B,) log probability of what was asked for."""


def gradient_of(total: Tensor, x: Tensor, *, keep: bool = False) -> Tensor:
    """d sum(total) / dx: of each sample, since no sample's value depends on another; 0 where nothing depends on x."""
    if total.shape != (len(x),):
        raise ValueError(
            f"a function that guides must give a number for each sample, ({len(x)},), not {tuple(total.shape)}"
        )
    if not total.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(total.sum(), x, retain_graph=keep, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient


class FunctionGuidance(Denoiser):
    """Pulls samples towards where a function is small, as if exp(-scale · loss) were the probability of what is wanted.

    The function sees either x_0, the data that the denoiser believes in (``on="x_0"``: any function of clean data will do, and its
    gradient goes through the denoiser), or x_t itself (``on="x_t"``: cheaper, for a function that was made for noisy data,
    such as a noisy classifier). It works where gradients are switched off, as they are in sampling.

    A loss that is much steeper than the denoiser is certain of x_0 makes the ODE stiff and few steps unstable: take a smaller
    scale, more steps, or divide the loss by the variance that x_0 still has at t.

    Equation:
        score <- score - scale · d loss / dx_t,   that is   eps <- eps + scale · sigma · d loss / dx_t
    Source:
        Dhariwal & Nichol 2021, algorithm 2 (x_t), https://arxiv.org/abs/2105.05233; through x_0: Chung et al. 2023 (posterior sampling), https://arxiv.org/abs/2209.14687; Bansal et al. 2023 (universal guidance, forward), https://arxiv.org/abs/2302.07121

    Args:
        denoiser: to guide; with ``on="x_0"`` its network must be differentiable.
        loss: what to make small.
        scale: 0 is off. For a loss that is a true negative log-likelihood 1 is Bayes' rule.
        on: what the loss is a function of.
        interval: (lowest, highest) noise level sigma / alpha at which to guide.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        loss: LossFunction,
        scale: float = 1.0,
        *,
        on: Literal["x_0", "x_t"] = "x_0",
        interval: Interval = EVERYWHERE,
    ) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.loss = loss
        self.scale = scale
        self.interval = interval
        self.on = on

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        scale = scale_within(self.process, t, self.scale, self.interval, x_t, outside=0.0)
        if scale is None:
            return self.denoiser(x_t, t, **cond)
        asked = {"x_0": self._through_denoiser, "x_t": self._beside_denoiser}[self.on]
        prediction, gradient = asked(x_t, t, cond)
        return prediction.shift_score(-scale * gradient)

    def _beside_denoiser(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor]) -> tuple[Prediction, Tensor]:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            gradient = gradient_of(self.loss(x, t, cond), x)
        return self.denoiser(x_t, t, **cond), gradient

    def _through_denoiser(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor]) -> tuple[Prediction, Tensor]:
        # Another such guidance around this one differentiates as well: then the graph is its own. (It takes this one's gradient for a constant.)
        inner = torch.is_grad_enabled() and x_t.requires_grad
        with torch.enable_grad():
            x = x_t if inner else x_t.detach().requires_grad_()
            prediction = self.denoiser(x, t, **cond)
            gradient = gradient_of(self.loss(prediction.x_0, t, cond), x, keep=inner)
        return prediction if inner else prediction.detach(), gradient


class ClassifierGuidance(FunctionGuidance):
    """Pulls samples towards where a noisy classifier sees the class that was asked for: the gradient of its log probability.

    An unconditional model becomes conditional; a conditional one more so. Scale 1 is Bayes' rule, more gives clearer and less varied
    samples, 0 is off.

    The belief moves as in the paper's algorithm 2, under every sampler. Its algorithm 1 moves the mean of a DDPM step by
    the step's variance times the gradient, which is nearly the same: ``DDPM(mean_shift=True)`` does that to the letter.

    Equation:
        eps <- eps - scale · sigma · d log p(y | x_t) / dx_t
    Source:
        Dhariwal & Nichol 2021, section 4 and algorithm 2, https://arxiv.org/abs/2105.05233

    Args:
        denoiser: conditional or not.
        log_prob: the classifier, ``NoisyClassifier.log_prob`` for one; 0 for samples that were asked for without a class.
        scale: guidance scale.
        interval: (lowest, highest) noise level sigma / alpha at which to guide.
    """

    def __init__(
        self, denoiser: Denoiser, log_prob: LogProb, scale: float = 1.0, interval: Interval = EVERYWHERE
    ) -> None:
        super().__init__(denoiser, lambda x_t, t, cond: -log_prob(x_t, t, cond), scale, on="x_t", interval=interval)
