"""Consistency models: from nothing, by tuning a diffusion model, or by distilling one."""

from __future__ import annotations

from unstir.data import DataConfig
from unstir.errors import UserError
from unstir.networks import UNetConfig
from unstir.objectives import (
    ConsistencyObjective,
    ContinuousConsistencyObjective,
    DistillationObjective,
    KarrasPairs,
    ShrinkingPairs,
)
from unstir.objectives.discretization import karras
from unstir.processes import EDM
from unstir.recipes.distillation import (
    Aim,
    Original,
    guidance_of,
    settled_aim,
    student,
    student_dropout,
    student_sampling,
    student_training,
)
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import Consistency
from unstir.samplers.grids import Karras
from unstir.sampling import Grid
from unstir.training.config import LinearDecay, MuonConfig, TrainingConfig

STEPS = 2
"""Of a student, where nobody said how many."""
LAST_LEVEL = 1.6
"""Noise level of the last stop before the data, of two steps the second one's, in standard deviations of the data (Geng et al. 2024, for
pictures of 32 x 32 with a standard deviation of 0.5: 0.821)."""
MINUTES = 10.0
"""Of training."""

# Labels, given or found, are plain conditions: nothing guides. The pairs shrink in four stages, not in eight, and the learning rate falls
# from the start: with eight, and twice the rate for most of the way, the answers collapsed to one for all noise within ten minutes.
consistency = Recipe(
    about="A consistency model, from nothing, in ten minutes on two cores: samples in 1 or 2 steps.",
    kinds=("image", "signal", "volume"),
    data=DataConfig(),
    process=EDM(sigma_max=60.0),
    network=UNetConfig(),
    denoiser=DenoiserConfig(parameterization="edm"),
    objective=ConsistencyObjective(pairs=ShrinkingPairs(q=4.0, stages=4), dropout=0.1),
    training=TrainingConfig(
        minutes=MINUTES, batch_size=32, learning_rate=1e-3, decay=LinearDecay(0.0), optimizer=MuonConfig()
    ),
    sampling=SamplingConfig(Consistency(), Karras(sigma_min=0.5 * LAST_LEVEL), STEPS),
)


def asked_steps(original: Original, aim: Aim, default: int = STEPS) -> int:
    """The number of steps in which the student samples.

    Raises:
        UserError: not fewer than the original's, or something that is not for this method.
    """
    steps, theirs = aim.steps or default, original.recipe.sampling.steps
    if steps >= theirs:
        raise UserError(f"{original.name} samples in {theirs} steps already: ask for fewer than that, not {steps}")
    if aim.start is not None or aim.first is not None:
        raise UserError("--start and --first are for --method progressive: this student is not made by halving steps")
    return steps


def stops(original: Original) -> Grid:
    """Where a student stops that draws each sample from noise anew: at most noise, ..., at ``LAST_LEVEL``."""
    return karras(original.recipe.process, sigma_min=round(LAST_LEVEL * original.spec.std, 3))


def _student(
    original: Original, aim: Aim, steps: int, objective: DistillationObjective, about: str
) -> dict[str, Recipe]:
    return {
        "": student(
            original,
            about=about,
            teacher=original.name,
            objective=objective,
            training=student_training(original, MINUTES),
            sampling=student_sampling(original, aim, Consistency(), stops(original), steps),
        )
    }


def distillation(original: Original, aim: Aim) -> dict[str, Recipe]:
    """The one stage of consistency distillation: the paths are the teacher's, guided as it is sampled.

    Raises:
        UserError: as many steps as the teacher's or more, or guidance where there is none.
    """
    aim, steps = settled_aim(original, aim), asked_steps(original, aim)
    objective = ConsistencyObjective(
        teacher=original.name,
        pairs=KarrasPairs(first=18, last=18, growth="constant"),
        dropout=student_dropout(original),
        **guidance_of(aim),
    )
    return _student(original, aim, steps, objective, "A consistency model, distilled: samples in 1 or 2 steps.")


def continuous(original: Original, aim: Aim) -> dict[str, Recipe]:
    """The one stage of consistency distillation in continuous time.

    Raises:
        UserError: as many steps as the teacher's or more, or guidance where there is none.
    """
    aim, steps = settled_aim(original, aim), asked_steps(original, aim)
    objective = ContinuousConsistencyObjective(
        teacher=original.name, dropout=student_dropout(original), **guidance_of(aim)
    )
    about = "A consistency model, distilled in continuous time: samples in 1 or 2 steps."
    return _student(original, aim, steps, objective, about)


def tuning(original: Original, aim: Aim) -> dict[str, Recipe]:
    """The one stage of consistency tuning: from a diffusion model's weights, by the data alone.

    Raises:
        UserError: as many steps as the original's or more, or guidance, which the data do not know of.
    """
    if aim.guidance_scale is not None or aim.guidance_range:
        raise UserError(
            "tuning learns from the data, which nobody guides: --method consistency learns from the guided model"
        )
    settled_aim(original, aim)  # for what it refuses
    steps = asked_steps(original, aim)
    objective = ConsistencyObjective(pairs=ShrinkingPairs(q=4.0, stages=4), dropout=student_dropout(original))
    return _student(original, Aim(steps), steps, objective, "A consistency model, tuned: samples in 1 or 2 steps.")
