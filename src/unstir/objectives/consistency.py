"""Learning to answer the same all along a path from noise to data, so that one answer is a sample: consistency models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from unstir.denoiser import Denoiser, NetDenoiser
from unstir.errors import UserError
from unstir.objectives.discretization import Pairs, ShrinkingPairs, noise_ratio
from unstir.objectives.distillation import DistillationObjective, Teacher
from unstir.objectives.objective import Batch, Companion, Loss
from unstir.objectives.times import spread
from unstir.process import Process, broadcast
from unstir.samplers.ode import along
from unstir.sampling import Cond, SampleNoise

# ---- from x_t to x_s on the same path ------------------------------------------------------------------------------------------

Solver = Callable[[Teacher, Tensor, Tensor, Tensor, Cond], Tensor]
"""(teacher, x_t, t, s, cond) -> x_s, one step down the probability-flow ODE; times (B,)."""


def ddim_step(teacher: Teacher, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
    """One evaluation: Euler's rule, DDIM.

    Equation:
        x_s = x_t + x_0 (alpha_s - alpha_t) + eps (sigma_s - sigma_t)
    Source:
        Song, Meng & Ermon 2021, eq. 13, https://arxiv.org/abs/2010.02502
    """
    return x_t + along(teacher.denoiser.process, teacher.believe(x_t, t, cond), t, s)


def heun_step(teacher: Teacher, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond) -> Tensor:
    """Two evaluations: Heun's rule; where s is the data, Euler's.

    Equation:
        x_s = x_t + (along(t) + along(s)) / 2,   the mean of Euler's increments with the beliefs at both ends of the step
    Source:
        Karras, Aittala, Aila & Laine 2022, algorithm 1, https://arxiv.org/abs/2206.00364; Song et al. 2023, section 4, https://arxiv.org/abs/2303.01469
    """
    process = teacher.denoiser.process
    here = along(process, teacher.believe(x_t, t, cond), t, s)
    there = along(process, teacher.believe(x_t + here, s, cond), t, s)
    return x_t + torch.where(broadcast(s, x_t) == 0, here, (here + there) / 2)


SOLVERS: dict[str, Solver] = {"heun": heun_step, "ddim": ddim_step}

# ---- how far apart two answers are ---------------------------------------------------------------------------------------------


def pseudo_huber(difference: Tensor, c: float) -> Tensor:
    """(B, ...) -> (B,): a distance, rounded off near 0. Per entry of the sample: the paper's, divided by the root of their number.

    Equation:
        d = sqrt(mean(difference²) + c²) - c   (the paper: sqrt(|difference|² + c²) - c with its c = 0.00054 sqrt(D))
    Source:
        Song & Dhariwal 2023, eq. 7 and section 3.3, https://arxiv.org/abs/2310.14189
    """
    return (squared(difference, c) + c**2).sqrt() - c


def squared(difference: Tensor, c: float) -> Tensor:
    """(B, ...) -> (B,): the mean square."""
    return difference.square().flatten(1).mean(1)


DISTANCES: dict[str, Callable[[Tensor, float], Tensor]] = {"pseudo-huber": pseudo_huber, "squared": squared}

# ---- how much each pair counts -------------------------------------------------------------------------------------------------


def uniform_weight(high: Tensor, low: Tensor, sigma_data: float) -> Tensor:
    """All the same: Song et al. 2023, section 6, https://arxiv.org/abs/2303.01469."""
    return torch.ones_like(high)


def step_weight(high: Tensor, low: Tensor, sigma_data: float) -> Tensor:
    """More the nearer the two noise levels are, so that the loss does not vanish with their distance.

    Equation:
        w = 1 / (sigma_{n+1} - sigma_n)
    Source:
        Song & Dhariwal 2023, section 3.1, https://arxiv.org/abs/2310.14189
    """
    return 1 / (high - low).clamp(min=1e-9)


def edm_weight(high: Tensor, low: Tensor, sigma_data: float) -> Tensor:
    """EDM's, which makes the weight of the network's own output 1.

    Equation:
        w = 1 / sigma_t² + 1 / sigma_data²
    Source:
        the code of Geng et al. 2024, https://github.com/locuslab/ect; Karras et al. 2022, table 1, https://arxiv.org/abs/2206.00364
    """
    return high**-2 + sigma_data**-2


def output_weight(high: Tensor, low: Tensor, sigma_data: float) -> Tensor:
    """The root of EDM's, for a distance that grows like the difference and not like its square: errors of the network's own output count
    the same at all noise levels.

    Equation:
        w = sqrt(1 / sigma_t² + 1 / sigma_data²)
    Source:
        Karras et al. 2022, table 1 (1 / c_out), https://arxiv.org/abs/2206.00364
    """
    return edm_weight(high, low, sigma_data).sqrt()


PAIR_WEIGHTS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "step": step_weight,
    "uniform": uniform_weight,
    "edm": edm_weight,
    "output": output_weight,
}

# ---- what is remembered from step to step --------------------------------------------------------------------------------------


def _whole(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors, all of them on this process also where training keeps only a share on each."""
    return [t.full_tensor() if hasattr(t, "full_tensor") else t for t in tensors]


class ConsistencyCompanion(Teacher):
    """The teacher, where there is one; how far the training is; and, where the target is an average, the network that it is.

    Args:
        denoiser: the teacher. None: the data themselves say how a path goes on.
        name: of its run.
        decay: fraction of the training that is done -> how much of the average stays in a step. None: the student is its own target.
    """

    target: nn.Module | None

    def __init__(
        self, denoiser: Denoiser | None = None, name: str = "the teacher", decay: Callable[[float], float] | None = None
    ) -> None:
        super().__init__(denoiser, name)
        self.decay = decay
        self.fraction = 1.0  # where nothing trains, as in the end
        self.target = None

    @property
    def teaches(self) -> bool:
        """Whether there is a teacher."""
        return bool(self.apart)

    @torch.no_grad()
    def begin(self, module: nn.Module) -> None:
        if self.decay is None:
            return
        if self.target is None:
            self.target = copy.deepcopy(module).requires_grad_(False)
        else:
            self._move(module, 0.0)

    def at(self, fraction: float) -> None:
        self.fraction = fraction

    @torch.no_grad()
    def follow(self, module: nn.Module, step: int) -> None:
        if self.decay is not None:
            self._move(module, self.decay(self.fraction))

    def _move(self, module: nn.Module, decay: float) -> None:
        assert self.target is not None
        torch._foreach_lerp_(list(self.target.parameters()), _whole(module.parameters()), 1 - decay)
        for mine, theirs in zip(self.target.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)


# ---- the objective -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConsistencyObjective(DistillationObjective):
    """Neighbours on one path from noise to data must get the same answer, which at the data is known: by and by every point of the path
    gets its end. The answer f(x_t, t) is the belief about x_0, which of a consistency model is no mean but a sample.

    Where the path goes from x_t is said by a teacher (consistency distillation), or, on average, by the data (training, and tuning of a
    diffusion model that ``--base`` brings).

        distillation, 2023     teacher, heun       karras, constant      squared        uniform     target-decay 0.95
        training, 2023         -                   karras, square-root   squared        uniform     target-decay 0.9
        improved training      -                   log-normal, doubling  pseudo-huber   step        0
        easy tuning            - (base)            shrinking             pseudo-huber   step        0

    f(x, 0) = x is exact here because the lower of the lowest pair of times is 0 and its answer the sample itself; below the first level
    EDM's c_skip and c_out (or a linear denoiser that is corrected) lead there. Song et al. 2023 shift the two by sigma_min instead; unshifted
    ones mean the same as those of diffusion models, from whose weights tuning and distillation start (so do Geng et al. 2024).

    Equation:
        L = E[ w(t, s) d( f(x_t, t), f^-(x_s, s) ) ],   x_s = solver step of the teacher from x_t, or alpha_s x_0 + sigma_s eps with the eps of x_t
    Source:
        Song, Dhariwal, Chen & Sutskever 2023, eqs. 7 and 10, algorithms 2 and 3, https://arxiv.org/abs/2303.01469
    """

    trains: ClassVar[type[nn.Module]] = NetDenoiser

    solver: Literal["heun", "ddim"] = "heun"
    """How the teacher steps from one time of a pair to the other: two evaluations of second order, or one of first."""
    pairs: Pairs = field(default_factory=ShrinkingPairs)
    """Which times are neighbours, and how they move together as training goes on."""
    distance: Literal["pseudo-huber", "squared"] = "pseudo-huber"
    """How far apart two answers are."""
    huber: float = 0.00054
    """The pseudo-Huber distance is rounded off below this root-mean-square difference."""
    weight: Literal["step", "uniform", "edm", "output"] = "step"
    """How much each pair counts: the more the nearer its times; all the same; as EDM weighs a noise level; or by the root of that, which
    makes the network's own output count the same everywhere."""
    target_decay: float = 0.0
    """How much the target is an average of the student's weights so far (the paper's mu_0): 0 not at all."""
    stratified: bool = True
    """Spread the times evenly over each batch: the same distribution, less noise in the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.huber <= 0 or not 0 <= self.target_decay < 1:
            raise UserError(
                f"objective.huber must be positive and target-decay in [0, 1), not {self.huber:g}, {self.target_decay:g}"
            )

    def decay(self, fraction: float) -> float:
        """How much of the average stays in a step, more as the pairs become finer.

        Equation:
            mu(k) = exp(s_0 ln mu_0 / N(k)) = mu_0^(N(0) / N(k))
        Source:
            Song, Dhariwal, Chen & Sutskever 2023, appendix C (schedule functions), https://arxiv.org/abs/2303.01469
        """
        return float(self.target_decay ** (1 / self.pairs.refinement(fraction)))

    def companion(self, process: Process, teacher: Denoiser | None = None) -> Companion | None:
        if teacher is None and (self.teacher or self.guidance_range or self.guidance_scale is not None):
            raise UserError(
                f"{self.teacher or 'a teacher'} is to be distilled, and was not loaded: name it with --objective.teacher RUN"
            )
        decay = self.decay if self.target_decay else None
        return ConsistencyCompanion(teacher, self.teacher or "the teacher", decay)

    def __call__(self, module: nn.Module, batch: Batch, rng: SampleNoise, companion: Companion | None = None) -> Loss:
        assert isinstance(module, NetDenoiser)
        state = companion if isinstance(companion, ConsistencyCompanion) else ConsistencyCompanion()
        process, x_0 = module.process, batch.x
        t, s = self.pairs.pair(process, spread(rng, self.stratified), state.fraction)
        eps = rng.normal_like(x_0)
        ours, theirs = self.told(batch, rng)
        x_t = process.add_noise(x_0, t, eps)
        with torch.no_grad():
            x_s = SOLVERS[self.solver](state, x_t, t, s, theirs) if state.teaches else process.add_noise(x_0, s, eps)
            goal = consistent(module if state.target is None else state.target.train(module.training), x_s, s, ours)
        distance = DISTANCES[self.distance](module(x_t, t, **ours).x_0 - goal, self.huber)
        weight = PAIR_WEIGHTS[self.weight](noise_ratio(process, t), noise_ratio(process, s), module.sigma_data)
        total = weight.to(distance.dtype).to(distance.device) * distance
        return Loss(total, {"loss": total, "distance": distance}, process.log_snr(t))


def consistent(module: nn.Module, x_s: Tensor, s: Tensor, cond: Cond) -> Tensor:
    """The target f(x_s, s), and at the data x_s itself, whatever the network's output means. What is random in the network (dropout) is left
    to be drawn once more, so that the student's answer to x_t is drawn alike.

    Equation:
        f(x, 0) = x
    Source:
        Song, Dhariwal, Chen & Sutskever 2023, section 3 (boundary condition), https://arxiv.org/abs/2303.01469
    """
    devices = [x_s.device] if x_s.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        answer: Tensor = module(x_s, s, **cond).x_0
    return torch.where(broadcast(s, x_s) == 0, x_s, answer)
