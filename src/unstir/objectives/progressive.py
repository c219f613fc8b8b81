"""Learning to do in one step what a teacher does in several."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from torch import Tensor, nn

from unstir.denoiser import Denoiser
from unstir.errors import UserError
from unstir.objectives.consistency import SOLVERS
from unstir.objectives.denoising import Space, squared_error
from unstir.objectives.distillation import DistillationObjective, Teacher
from unstir.objectives.objective import Batch, Companion, Loss
from unstir.objectives.times import spread
from unstir.objectives.weighting import TruncatedSNR, Weight
from unstir.process import Process, broadcast
from unstir.samplers.grids import Strided
from unstir.sampling import Cond, Grid, SampleNoise


def belief_behind(process: Process, x_t: Tensor, t: Tensor, x_s: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The belief (x_0, eps) with which a single step of DDIM from x_t arrives at x_s, s < t.

    It is the solution of x_t = alpha_t x_0 + sigma_t eps and x_s = alpha_s x_0 + sigma_s eps, which holds at both ends: where s is the
    data it is x_s itself, where t is pure noise eps is x_t.

    Equation:
        x_0 = (x_s - (sigma_s / sigma_t) x_t) / (alpha_s - (sigma_s / sigma_t) alpha_t),   eps = (x_t - alpha_t x_0) / sigma_t
    Source:
        Salimans & Ho 2022, algorithm 2, https://arxiv.org/abs/2202.00512

    Args:
        x_t, x_s: (B, ...).
        t, s: () or (B,).
    """
    alpha_t, sigma_t, alpha_s, sigma_s = process.alpha(t), process.sigma(t), process.alpha(s), process.sigma(s)
    det = alpha_s * sigma_t - alpha_t * sigma_s
    of_x_0 = broadcast(sigma_t / det, x_t) * x_s - broadcast(sigma_s / det, x_t) * x_t
    of_eps = broadcast(alpha_s / det, x_t) * x_t - broadcast(alpha_t / det, x_t) * x_s
    return of_x_0, of_eps


@lru_cache(maxsize=16)
def _times(grid: Grid, process: Process, steps: int) -> Tensor:
    times = grid.times(process, steps)
    if len(times) != steps + 1:
        raise UserError(f"this process has {len(times) - 1} steps, and the teacher is to take {steps}: ask for fewer")
    return times


@dataclass(frozen=True)
class ProgressiveObjective(DistillationObjective):
    """The weighted squared error against where the teacher gets in several DDIM steps, at the times at which the student samples.

    With two steps of the teacher to one of the student it is the paper's; with one the student learns the teacher's belief itself.
    The student keeps its own parameterisation, which may be another than the teacher's.

    Equation:
        L = E_{x, eps, i} [ w(snr_t) ||x~ - x_0(x_t)||² ],   t = t_i,   s = t_{i+1},   x~ = (x_s - (sigma_s / sigma_t) x_t) / (alpha_s - (sigma_s / sigma_t) alpha_t),   x_s after DDIM steps of the teacher from x_t
    Source:
        Salimans & Ho 2022, algorithm 2, https://arxiv.org/abs/2202.00512; a guided teacher: Meng et al. 2023, sections 3.1 and 3.2, https://arxiv.org/abs/2210.03142
    """

    grid: Grid = field(default_factory=Strided)
    """Where the teacher stops; with fewer steps its times must be among those with more (strided)."""
    steps: int = 4
    """Steps of the student."""
    substeps: int = 2
    """Steps of the teacher that one of the student's replaces."""
    solver: Literal["ddim", "heun"] = "ddim"
    """How the teacher steps: one evaluation of first order, as in the paper, or two of second order."""
    space: Space = "x_0"
    """Where the error is measured: the name of a parameterisation, or F for the network's own output."""
    weight: Weight = field(default_factory=TruncatedSNR)
    """Weight of each noise level."""
    stratified: bool = True
    """Spread the times evenly over each batch: the same distribution, less noise in the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.substeps < 1:
            raise UserError(f"steps and substeps must be at least 1, not {self.steps} and {self.substeps}")

    def paths(self, process: Process, rng: SampleNoise) -> tuple[Tensor, ...]:
        """(substeps + 1) times (B,) each: where a step of the student begins, where the teacher stops on the way, where it ends."""
        times = _times(self.grid, process, self.steps * self.substeps)
        # u = 0 is the data's end, as in ``UniformTimes``.
        step = self.steps - 1 - (spread(rng, self.stratified) * self.steps).long()
        return tuple(times[self.substeps * step + k] for k in range(self.substeps + 1))

    def target(self, teacher: Teacher, x_t: Tensor, path: Sequence[Tensor], cond: Cond) -> tuple[Tensor, Tensor]:
        """The belief (x_0, eps) about x_t at ``path[0]`` by which one step gets where the teacher gets along the path."""
        process, x = teacher.denoiser.process, x_t
        for t, s in itertools.pairwise(path):
            x = SOLVERS[self.solver](teacher, x, t, s, cond)
        return belief_behind(process, x_t, path[0], x, path[-1])

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, Denoiser)
        assert isinstance(companion, Teacher)
        path = self.paths(module.process, rng)
        eps = rng.normal_like(batch.x)
        ours, theirs = self.told(batch, rng)
        x_t = module.process.add_noise(batch.x, path[0], eps)
        target = self.target(companion, x_t, path, theirs)
        prediction = module(x_t, path[0], **ours)
        log_snr = module.process.log_snr(path[0])
        total = self.weight.weigh(squared_error(module, prediction, *target, self.space), log_snr, None)
        off = (prediction.x_0 - target[0]).detach().square().flatten(1).mean(1)
        return Loss(total, {"loss": total, "error": off}, log_snr)
