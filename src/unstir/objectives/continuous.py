"""Consistency models without a grid of times: the answer's own derivative along the path is what must vanish (sCT, sCD)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unstir.denoiser import NetDenoiser
from unstir.errors import UserError
from unstir.objectives.consistency import ConsistencyCompanion
from unstir.objectives.distillation import DistillationObjective
from unstir.objectives.objective import Batch, Companion, Loss
from unstir.objectives.times import LogNormal, Times, spread
from unstir.process import Process, broadcast
from unstir.sampling import Cond, SampleNoise


@contextmanager
def differentiable(module: NetDenoiser) -> Iterator[None]:
    """Within it the module can be differentiated forward: in full precision, and by an attention that knows its derivative."""
    precision, module.autocast = module.autocast, None
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            # PyTorch loads its forward derivatives by a function that it has itself deprecated.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
            yield
    finally:
        module.autocast = precision


def angle(process: Process, t: Tensor, sigma_data: float) -> Tensor:
    """How far from the data t is, in TrigFlow's angle: 0 at the data, pi/2 at nothing but noise, whatever the process.

    Equation:
        tan(theta) = sigma / (alpha sigma_data)
    Source:
        Lu & Song 2024, section 3.1 (x_t = cos(t) x_0 + sin(t) z), https://arxiv.org/abs/2410.11081
    """
    return torch.atan2(process.sigma(t), process.alpha(t) * sigma_data)


def tangent(
    module: NetDenoiser, x_0: Tensor, eps: Tensor, t: Tensor, cond: Cond, ease: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(the answer f(x_t, t), how it changes along the path): nothing of it is differentiated by the weights.

    The path goes through x_t with the slope that the belief (x_0, eps) gives it, which is the probability-flow ODE's; its derivative, in the
    angle, is computed forward, beside the answer. The part of it that vanishes only as the network learns is eased in.

    Equation:
        df/dtheta = cot(theta) (f - x_0) + ease · rest,   f along alpha x_0 + sigma eps with (x_0, eps) held
    Source:
        Lu & Song 2024, eqs. 6 and 7 (tangent warm-up, section 4.1), https://arxiv.org/abs/2410.11081

    Args:
        x_0, eps: (B, ...) what the path is believed to lead to.
        t: (B,) float64.
        ease: 1: the whole derivative; 0: that of denoising.
    """

    def answer(tau: Tensor) -> tuple[Tensor, Tensor]:
        f: Tensor = module(module.process.add_noise(x_0, tau, eps), tau, **cond).x_0
        return f, angle(module.process, tau, module.sigma_data)

    with torch.no_grad(), differentiable(module):
        (f, theta), (df, dtheta) = torch.func.jvp(answer, (t,), (torch.ones_like(t),))  # type: ignore[misc]
    whole = df / broadcast(dtheta, df)
    plain = (f - x_0) / broadcast(theta.tan(), f)
    return f, plain + ease * (whole - plain)


@dataclass(frozen=True)
class ContinuousConsistencyObjective(DistillationObjective):
    """The answer must not change along the path from noise to data. Where ``ConsistencyObjective`` compares two neighbours, this one takes
    the limit: the derivative of the answer is computed with it, and the answer moved against it. No grid of times, and no error of its steps.

    The derivative is kept in bounds by its own length, and its unstable part eased in. The student's dropout must be 0.

    Equation:
        L = mean| (f - (f^- - sigma_data sin(theta) g / (|g| + c))) / (sigma_data sin(theta)) |²,   g = cos(theta) df^-/dtheta
    Source:
        Lu & Song 2024, eq. 8 and algorithm 1, https://arxiv.org/abs/2410.11081
    """

    trains: ClassVar[type[nn.Module]] = NetDenoiser

    times: Times = field(default_factory=lambda: LogNormal(-0.8, 1.6))
    """Distribution of training times (the paper, for images of standard deviation 0.5: -1.0 and 1.4; distilling, -0.8 and 1.6)."""
    bound: float = 0.1
    """The c that is added to the derivative's length."""
    ease: float = 0.1
    """Fraction of training in which the derivative's unstable part is eased in."""
    stratified: bool = True
    """Spread the times evenly over each batch: the same distribution, less noise in the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bound <= 0 or not 0 <= self.ease <= 1:
            raise UserError(
                f"objective.bound must be positive and ease in [0, 1], not {self.bound:g} and {self.ease:g}"
            )

    def companion(self, process: Process, teacher: nn.Module | None = None) -> Companion | None:
        middle = torch.tensor(process.t_max / math.e, dtype=torch.float64)
        if not torch.equal(process.snap(middle), middle):
            raise UserError("this process goes in whole steps, and has no derivative: use --method consistency")
        return ConsistencyCompanion(teacher, self.teacher or "the teacher")  # type: ignore[arg-type]

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, NetDenoiser)
        state = companion if isinstance(companion, ConsistencyCompanion) else ConsistencyCompanion()
        process, sd = module.process, module.sigma_data
        t = self.times.quantile(process, spread(rng, self.stratified))
        x_0, eps = batch.x, rng.normal_like(batch.x)
        ours, theirs = self.told(batch, rng)
        x_t = process.add_noise(x_0, t, eps)
        if state.teaches:
            belief = state.believe(x_t, t, theirs)
            x_0, eps = belief.x_0, belief.eps
        ease = min(state.fraction / self.ease, 1.0) if self.ease else 1.0
        _, slope = tangent(module, x_0, eps, t, ours, ease)
        theta = angle(process, t, sd)
        g = broadcast(theta.cos(), slope) * slope
        length = g.flatten(1).norm(dim=1)
        g = g / broadcast(length + self.bound, g)
        f = module(x_t, t, **ours).x_0
        # F = (cos(theta) x - f) / (sigma_data sin(theta)) in TrigFlow: its target is moved by +g, that of f by -sigma_data sin(theta) g.
        error = (f - f.detach()) / broadcast(sd * theta.sin(), f) + g
        total = error.square().flatten(1).mean(1)
        return Loss(total, {"loss": total, "tangent": length}, process.log_snr(t))
