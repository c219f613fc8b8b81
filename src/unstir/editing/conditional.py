"""Samples of which a part is known: four ways to make a sampler respect it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.editing.drawing import Drawing
from unstir.editing.reconstruction import ReconstructionGuidance
from unstir.errors import UserError, did_you_mean
from unstir.prediction import Prediction
from unstir.samplers.repaint import RePaint
from unstir.samplers.replacement import Known, Replacement
from unstir.sampling import Sampler, sample


class KnownBelief(Denoiser):
    """Believes of the known part that it is what it is known to be.

    Equation:
        x_0 <- A^T A y + (I - A^T A) x_0
    Source:
        the sampling code that came with Nichol et al. 2022 (denoised_fn), https://arxiv.org/abs/2112.10741; Song et al. 2023, algorithm 4, https://arxiv.org/abs/2303.01469
    """

    def __init__(self, denoiser: Denoiser, known: Known) -> None:
        super().__init__(denoiser.process)
        self.denoiser = denoiser
        self.known = known

    def forward(self, x_t: Tensor, t: Tensor, /, **cond: Tensor) -> Prediction:
        prediction = self.denoiser(x_t, t, **cond)
        return prediction.with_x_0(self.known.put(prediction.x_0, self.known.x_0))


class Method(ABC):
    """How the known part gets its way. A new one is a frozen dataclass and a line in ``METHODS``."""

    def sampler(self, inner: Sampler, known: Known) -> Sampler:
        """What goes around the sampler."""
        return inner

    @abstractmethod
    def denoiser(self, inner: Denoiser, known: Known) -> Denoiser:
        """What goes around the denoiser."""


@dataclass(frozen=True)
class ByReplacement(Method):
    """The known part of every x_t is the known data, with noise of its own. Cheap; the unknown part may not fit well."""

    def sampler(self, inner: Sampler, known: Known) -> Sampler:
        return Replacement(inner, known)

    def denoiser(self, inner: Denoiser, known: Known) -> Denoiser:
        return inner


@dataclass(frozen=True)
class ByResampling(ByReplacement):
    """RePaint: replacement, and every stretch of the way repeated until the two parts agree."""

    resamplings: int = 10
    """How often every stretch is walked."""
    jump: int = 1
    """How many steps make a stretch."""

    def sampler(self, inner: Sampler, known: Known) -> Sampler:
        return RePaint(Replacement(inner, known), self.resamplings, self.jump)


@dataclass(frozen=True)
class ByGradient(ByReplacement):
    """Reconstruction guidance: replacement, and the belief about the rest corrected by the gradient of what it gets wrong."""

    scale: float = 4.0
    """How hard to pull; much more overshoots."""

    def denoiser(self, inner: Denoiser, known: Known) -> Denoiser:
        return ReconstructionGuidance(inner, known, self.scale)


@dataclass(frozen=True)
class ByBelief(Method):
    """Every believed sample gets its known part, and the sampler goes on from there. With the sampler ``Consistency`` it is zero-shot
    editing with a consistency model, whose noise is drawn anew in every step anyway.

    Equation:
        x <- A^-1 [(A y) (1 - Omega) + (A f(x, t_n)) Omega]
    Source:
        Song, Dhariwal, Chen & Sutskever 2023, algorithm 4, https://arxiv.org/abs/2303.01469
    """

    def denoiser(self, inner: Denoiser, known: Known) -> Denoiser:
        return KnownBelief(inner, known)


METHODS: dict[str, type[Method]] = {
    "repaint": ByResampling,
    "replacement": ByReplacement,
    "gradient": ByGradient,
    "belief": ByBelief,
}


def method_of(method: str | Method, methods: Mapping[str, type[Method]] = METHODS) -> Method:
    """A method, or one of a table by its name with its defaults.

    Raises:
        UserError: no such name.
    """
    if isinstance(method, Method):
        return method
    if method not in methods:
        raise UserError(f"unknown method '{method}'; {did_you_mean(method, methods)}")
    return methods[method]()


def complete(
    drawing: Drawing, known: Known, method: Method, n: int, batch_size: int, within: Known | None = None
) -> Tensor:
    """n samples with the known part: (n, *shape) in model units on the CPU. The known part is the given one exactly.

    The sampler starts from known data with noise and pure noise elsewhere, so nothing of what is not known is looked at.

    Args:
        within: what is known where the denoiser works, of a model in latents; by default the same.
    """
    held = within or known
    denoiser = drawing.denoiser(lambda inner: method.denoiser(inner, held))
    sampler, times = method.sampler(drawing.settings.sampler, held), drawing.times()
    pieces = []
    for rng, cond in drawing.batches(n, batch_size):
        eps = drawing.normal(rng)
        noised = drawing.process.add_noise(held.x_0, times[0], eps)
        x = held.put(drawing.process.prior_sample(eps, times[0]), noised)
        x = drawing.model.decode(sample(denoiser, sampler, times, x, rng, cond))
        pieces.append(known.put(x, known.x_0).cpu())
    return torch.cat(pieces)
