"""Learning to draw from the distribution that a teacher draws from, and not its samples one by one: distribution matching."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from unstir.denoiser import Denoiser, NetDenoiser
from unstir.errors import UserError
from unstir.objectives.denoising import squared_error
from unstir.objectives.distillation import DistillationObjective, Teacher
from unstir.objectives.objective import Batch, Companion, Loss
from unstir.objectives.times import LogNormal, Times, spread
from unstir.process import Process, broadcast
from unstir.samplers.grids import Karras
from unstir.sampling import Cond, Grid, SampleNoise

SMALLEST = 1e-6
"""Of what the gradient is divided by."""


def matching_gradient(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Where a student's samples are to move for their distribution to become the teacher's: from the belief about them of a denoiser that
    knows the student's samples, to that of one that knows the teacher's. Up to a factor of each noise level it is the gradient of the KL
    divergence between the two noised distributions.

    Equation:
        g = (mu_fake(x_t, t) - mu_real(x_t, t)) / mean|x - mu_real(x_t, t)|
    Source:
        Yin et al. 2024, eqs. 7 and 8, https://arxiv.org/abs/2311.18828

    Args:
        x: (B, ...) samples of the student.
        real, fake: what the two believe that noised x_t was.
    """
    size = (x - real).abs().flatten(1).mean(1).clamp(min=SMALLEST)
    return (fake - real) / broadcast(size, x)


class Rivals(Teacher):
    """The teacher, which knows what samples should look like; and a denoiser that learns, while the student does, what they do look like.

    Args:
        denoiser: the teacher, with all that guides it.
        fake: the other one, to be trained.
        name: of the teacher's run.
    """

    def __init__(self, denoiser: Denoiser, fake: Denoiser, name: str = "the teacher") -> None:
        super().__init__(denoiser, name)
        self.fake = fake


@dataclass(frozen=True)
class MatchingObjective(DistillationObjective):
    """The student's samples are moved from where a denoiser of its own samples sees them to where the teacher does; that denoiser learns
    beside it. Nothing says which sample is to come out of which noise, so that none of the paths of the teacher has to be learned, and
    samples are as sharp as they have to be to pass for its; it is for a student that draws samples in a step or two already.

    In more than one step each sample is noised anew (the sampler ``Consistency``), and the student begins, in training as in sampling, with
    its own samples, noised.

    Equation:
        L = 1/2 mean|x - sg(x - g)|² + L_fake,   g = matching_gradient,   L_fake = mean|F_fake(x_s, s) - F|²,   x = f(x_t, t), x_s = alpha_s x + sigma_s eps
    Source:
        Yin et al. 2024, eqs. 6 to 8 and algorithm 2, https://arxiv.org/abs/2311.18828; more than one step: Yin et al. 2024, sections 4.4 and 4.5, https://arxiv.org/abs/2405.14867
    """

    trains: ClassVar[type[nn.Module]] = NetDenoiser

    grid: Grid = field(default_factory=Karras)
    """Where the student stops when it samples."""
    steps: int = 1
    """In how many steps it samples."""
    times: Times = field(default_factory=lambda: LogNormal(0.3, 1.4))
    """At which noise levels the two denoisers are asked."""
    stratified: bool = True
    """Spread those evenly over each batch: the same distribution, less noise in the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise UserError(f"objective.steps must be at least 1, not {self.steps}")
        if self.guidance_range:
            raise UserError("distribution matching learns one guidance scale for good, not a range of them")

    def companion(self, process: Process, teacher: Denoiser | None = None) -> Companion | None:
        held = super().companion(process, teacher)
        assert isinstance(held, Teacher)
        networks = [part for part in held.denoiser.modules() if isinstance(part, NetDenoiser)]
        if networks[0].process != process:
            raise UserError("distribution matching needs a student with its teacher's process")
        return Rivals(held.denoiser, copy.deepcopy(networks[0]).requires_grad_(True).train(), held.name)

    def begin(self, module: Denoiser, like: Tensor, cond: Cond, rng: SampleNoise) -> tuple[Tensor, Tensor]:
        """(x_t, t): where a step of the student begins, (B, ...) and (B,). At the first stop it is noise, at a later one, which the student
        goes to, its own sample noised anew.

        Args:
            like: (B, ...) data.
        """
        process = module.process
        stops = self.grid.times(process, self.steps)[:-1]
        last = (rng.uniform() * len(stops)).long()
        x_t = process.prior_sample(rng.normal_like(like), stops[0])
        with torch.no_grad():
            for k in range(len(stops) - 1):
                eps, rows = rng.normal_like(like), (last > k).nonzero()[:, 0].to(like.device)
                if len(rows):
                    told = {name: value[rows] for name, value in cond.items()}
                    x_0 = module(x_t[rows], stops[k], **told).x_0
                    x_t = x_t.index_copy(0, rows, process.add_noise(x_0, stops[k + 1], eps[rows]))
        return x_t, stops[last]

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, NetDenoiser)
        assert isinstance(companion, Rivals)
        process = module.process
        ours, theirs = self.told(batch, rng)
        x = module(*self.begin(module, batch.x, ours, rng), **ours).x_0
        made, s, eps = x.detach(), self.times.quantile(process, spread(rng, self.stratified)), rng.normal_like(x)
        x_s = process.add_noise(made, s, eps)
        fake = companion.fake(x_s, s, **ours)
        denoising = squared_error(companion.fake, fake, made, eps, "F")
        gradient = matching_gradient(made, companion.believe(x_s, s, theirs).x_0, fake.x_0.detach())
        matching = 0.5 * (x - (made - gradient)).square().flatten(1).mean(1)
        return Loss(matching + denoising, {"loss": matching, "fake": denoising}, process.log_snr(s))
