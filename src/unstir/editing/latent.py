"""What is known of a sample, for a model that works in an autoencoder's latents.

Pixels around a hole make latents that are known (``inpaint.latents_outside``). A grey, or a smaller copy, is no part of the latents: there a
sampler is held to it by the gradient of what the decoder makes of its belief.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unstir.denoiser import Denoiser
from unstir.editing.conditional import ByGradient, Method, complete, method_of
from unstir.editing.drawing import Drawing
from unstir.editing.reconstruction import surprise
from unstir.errors import UserError
from unstir.guidance import FunctionGuidance
from unstir.model import Model
from unstir.samplers.replacement import Known

ROUNDS = 8  # of the power iteration
TIMID = 4.0
"""The scale of ``ByGradient`` that here makes the longest step that cannot overshoot."""


def nothing(like: Tensor) -> Known:
    """Nothing is known of samples like this."""
    return Known(like, torch.zeros_like, lambda x: x)


@dataclass(frozen=True, eq=False)
class ByDecodedGradient(Method):
    """The belief is moved until what the decoder makes of it has the known part: reconstruction guidance through the decoder.

    Equation:
        z_0 <- z_0 - scale alpha_t / (2 L) grad_{z_t} ||A D(z_0(z_t)) - y||²,   L the largest eigenvalue of (A J)^T A J, J the decoder's Jacobian
    Source:
        Ho, Salimans, Gritsenko, Chan, Norouzi & Fleet 2022, section 3.1, https://arxiv.org/abs/2204.03458; through a decoder: Rout et al. 2023 (what they call latent DPS), https://arxiv.org/abs/2307.00619

    Args:
        known: of the data, not of the latents.
        decode: latents -> data.
        scale: 1 is the longest step that cannot overshoot where the noise is small.
        steepness: L.
    """

    known: Known
    decode: Callable[[Tensor], Tensor]
    scale: float
    steepness: float

    def denoiser(self, inner: Denoiser, known: Known) -> Denoiser:
        def loss(z_0: Tensor, t: Tensor, cond: object) -> Tensor:
            return surprise(inner.process, self.known, self.decode(z_0), t)

        return FunctionGuidance(inner, loss, self.scale / self.steepness)


def steepness(function: Callable[[Tensor], Tensor], at: Tensor) -> float:
    """The largest eigenvalue of J^T J, J the Jacobian of a function at (1, ...): how long a step back is that a step of one in the worst
    direction calls for.

    Equation:
        v <- J^T J v / |J^T J v|
    Source:
        von Mises & Pollaczek-Geiringer 1929 (power iteration), https://doi.org/10.1002/zamm.19290090105
    """
    little = (
        1e-2 * at.numel() ** 0.5
    )  # a hundredth in every entry; not every layer has derivatives in the forward direction
    v, found = 1 + torch.linspace(-0.5, 0.5, at.numel(), device=at.device).reshape(at.shape), 0.0
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        there = function(at)
        for _ in range(ROUNDS):
            v = v / v.norm()
            along = ((function(at + little * v) - there) / little).detach()  # J v
            (v,) = torch.autograd.grad(there, at, along, retain_graph=True)  # J^T J v
            found = float(v.norm())
    return max(found, 1e-12)


def held_through_decoder(model: Model, known: Known, method: Method) -> tuple[Method, Known]:
    """(the method, what is known of the latents) by which a model in latents is held to a known part of the data.

    Args:
        known: of the data.
        method: as it was asked for.

    Raises:
        UserError: a method that works on a part of what the denoiser sees.
    """
    if not isinstance(method, ByGradient):
        raise UserError(
            "this model works in the latents of an autoencoder, of which what is given is no part that could be replaced: use --method gradient, "
            "which goes through the decoder"
        )
    unbounded = replace(model.spec, bounds=())

    def decode(z: Tensor) -> Tensor:
        return model.codec.decode(z, unbounded)

    z = model.encode(known.x_0)
    steep = steepness(lambda at: known.project(decode(at)), z)
    return ByDecodedGradient(known, decode, method.scale / TIMID, steep), nothing(z)


def held_to(drawing: Drawing, known: Known, method: str | Method | None, n: int, batch_size: int) -> Tensor:
    """n samples (n, *shape) with a known part of the data that is no part of the latents, where the model works in some.

    Args:
        method: "replacement" where none is given, or "gradient" of a model in latents.

    Raises:
        UserError: as for ``held_through_decoder``, or an unknown method.
    """
    latent = drawing.model.codec.latent
    chosen = method_of(method or ("gradient" if latent else "replacement"))
    if not latent:
        return complete(drawing, known, chosen, n, batch_size)
    chosen, within = held_through_decoder(drawing.model, known, chosen)
    return complete(drawing, known, chosen, n, batch_size, within)
