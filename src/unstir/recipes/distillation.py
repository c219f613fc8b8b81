"""Students: recipes that learn from a run how to sample in fewer steps. What all methods of distillation share."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE, scale_range
from unstir.data import DataSpec
from unstir.errors import UserError
from unstir.objectives import DistillationObjective, Objective
from unstir.recipes.module import DenoiserConfig
from unstir.recipes.recipe import Recipe, SamplingConfig
from unstir.sampling import Grid, Sampler
from unstir.training.config import LinearDecay, TrainingConfig

LEARNING_RATE = 0.25
"""Of a student, as a part of what its teacher was trained with: Salimans & Ho's released code has 5e-5 after 2e-4."""
DROPOUT = 0.1
"""Most of the samples that lose their conditions, whatever the teacher's: without them a student costs less, and is still to be asked."""
AMPLIFIED = ("eps", "score")
"""What cannot be believed of x_0 where there is hardly anything but noise, which is where a student takes its longest step."""


@dataclass(frozen=True)
class Original:
    """The run that is to be distilled.

    Args:
        name: by which the student's recipe refers to it: the whole path, with @STEP where a checkpoint is meant.
        recipe, spec: the run's.
    """

    name: str
    recipe: Recipe
    spec: DataSpec


@dataclass(frozen=True)
class Aim:
    """What the student is to be able to.

    Args:
        steps: in which it samples. None: as the method recommends.
        start: steps of the teacher in which it would get as far. None: as the method recommends.
        first: steps of the first of several students. None: as the method recommends.
        base: run whose weights the student begins with, as its recipe refers to it. None: as the method recommends.
        guidance_scale: of the teacher, learned for good. None: what the teacher recommends.
        guidance_range: (lowest, highest) scale that the student learns as an input; empty: it learns one for good.
    """

    steps: int | None = None
    start: int | None = None
    first: int | None = None
    base: str | None = None
    guidance_scale: float | None = None
    guidance_range: tuple[float, ...] = ()


def settled_aim(original: Original, aim: Aim) -> Aim:
    """The aim, where the teacher takes its guidance scale as an input with the range of that, unless one scale is asked for.

    Raises:
        UserError: guidance of a model that has nothing to be guided by.
    """
    if aim.base is not None:
        raise UserError("--base is for --method matching: this student begins as its teacher")
    conditions = original.spec.conditions
    asked = aim.guidance_scale is not None or bool(aim.guidance_range)
    if asked and not any(condition.seen and not condition.always for condition in conditions.values()):
        raise UserError(f"{original.name} was trained without conditions: it has no guidance scale")
    if not asked and GUIDANCE_SCALE in conditions:
        return replace(aim, guidance_range=scale_range(conditions[GUIDANCE_SCALE]))
    return aim


def guidance_of(aim: Aim, *, first: bool = True) -> dict[str, Any]:
    """The fields of a ``DistillationObjective`` that say how its teacher is guided.

    Args:
        first: whether the teacher is the run that is distilled; a student that teaches the next one has one scale inside already.
    """
    return {"guidance_scale": aim.guidance_scale if first else None, "guidance_range": aim.guidance_range}


def student(
    original: Original,
    *,
    about: str,
    teacher: str,
    objective: Objective,
    training: TrainingConfig,
    sampling: SamplingConfig,
) -> Recipe:
    """A recipe whose network begins as the teacher's, on the teacher's data, without drop-out inside.

    One that gives the noise is replaced by one that gives EDM's mix of data and noise: the former says nothing of the data where there is
    nothing but noise.

    Args:
        teacher: the run whose weights it begins with, and that the objective names.
    """
    theirs = original.recipe
    assert isinstance(theirs.denoiser, DenoiserConfig)
    denoiser = replace(theirs.denoiser, sigma_data=theirs.denoiser.sigma_data or original.spec.std)
    if denoiser.parameterization in AMPLIFIED:
        denoiser = replace(denoiser, parameterization="edm")
    return replace(
        theirs,
        about=about,
        kinds=(original.spec.kind,),
        base=teacher,
        network=_without_dropout(theirs.network),
        denoiser=denoiser,
        objective=objective,
        training=training,
        sampling=sampling,
    )


def _without_dropout(network: Any) -> Any:
    there = any(field.name == "dropout" for field in fields(network))
    return replace(network, dropout=0.0) if there else network


def student_training(original: Original, minutes: float) -> TrainingConfig:
    """As the teacher was trained, but for so many minutes, with a lower learning rate that goes down all the way."""
    theirs = original.recipe.training
    return replace(
        theirs,
        steps=None,
        images=None,
        minutes=minutes,
        learning_rate=LEARNING_RATE * theirs.learning_rate,
        decay=LinearDecay(0.0),
        sample_every=0,
        evaluate_every=0,
    )


def student_sampling(original: Original, aim: Aim, sampler: Sampler, grid: Grid, steps: int) -> SamplingConfig:
    """How a student samples: what guided its teacher it has learned, so that nothing does any more; or it is told how much. Who draws its
    conditions, the stage below or a prior, is who did."""
    theirs = original.recipe.sampling
    low, high = aim.guidance_range or (1.0, 1.0)
    return SamplingConfig(
        sampler,
        grid,
        steps,
        guidance_scale=min(max(theirs.guidance_scale, low), high),
        clip=theirs.clip,
        low_res_from=theirs.low_res_from,
        low_res_steps=theirs.low_res_steps,
        low_res_guidance_scale=theirs.low_res_guidance_scale,
        prior=theirs.prior,
        prior_steps=theirs.prior_steps,
        prior_guidance_scale=theirs.prior_guidance_scale,
        prior_candidates=theirs.prior_candidates,
        labels=theirs.labels,
    )


def student_dropout(original: Original) -> float:
    """The fraction of samples whose conditions a student does without: its teacher's, at most ``DROPOUT``."""
    return min(float(getattr(original.recipe.objective, "dropout", 0.0)), DROPOUT)


def check_mean(recipe: Recipe, name: str) -> None:
    """Refuses what needs a belief that is the mean of all that the data may have been: likelihoods, and codes made by them.

    Raises:
        UserError: the run is a student, or another consistency model, whose belief is a sample.
    """
    if isinstance(recipe.objective, DistillationObjective):
        raise UserError(
            f"{name} was trained to draw samples in a few steps, and tells nothing of how likely data are: ask a run that was trained to denoise"
            + (f", such as its teacher {recipe.objective.teacher}" if recipe.objective.teacher else "")
        )


def check_guidance(recipe: Recipe, spec: DataSpec, settings: SamplingConfig) -> None:
    """Refuses to guide a student that has learned to be guided by one scale.

    Raises:
        UserError: with the way to have a scale to choose.
    """
    taught = isinstance(recipe.objective, DistillationObjective) and bool(recipe.objective.teacher)
    if taught and settings.guidance_scale != 1 and GUIDANCE_SCALE not in spec.conditions:
        raise UserError(
            "this model was distilled with its guidance inside, at one scale, and takes no other; "
            "unstir distill RUN --guidance-scale 1 4 makes one that does"
        )
