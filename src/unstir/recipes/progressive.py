"""Progressive distillation: half as many steps, and half as many again, each student the teacher of the next one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from unstir.conditioning.guidance_scale import GUIDANCE_SCALE
from unstir.errors import UserError
from unstir.objectives import ProgressiveObjective
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
from unstir.recipes.recipe import Recipe, SamplingConfig
from unstir.samplers import DDIM
from unstir.samplers.grids import Strided

STEPS = 4
"""Of the last student, where nobody said how many."""
TEACHER = 64
"""About so many steps of DDIM stand for the teacher. More are hardly more exact, and each halving costs a stage."""
FIRST = 16
"""About so many steps has the first student: it does at once what would be several halvings, in which there is little to learn yet."""
MINUTES = 4.0
"""Of a stage; of the last ones, in which most is to be learnt, twice as many."""
GUIDED = "guided"
"""Folder of the student that learns the guidance at every scale, before there are fewer steps."""
GUIDED_MINUTES = 6.0
"""Of its training."""
HARD = 2
"""Steps from which down a stage is one of those."""


@dataclass(frozen=True)
class Halvings:
    """How the steps become fewer.

    Args:
        grid: whose every so-manieth stop each student takes, ``grid.of`` of them the teacher.
        steps: of the students, the first one first, each half as many as before.
        substeps: of the teacher, for one step of the first student.
    """

    grid: Strided
    steps: tuple[int, ...]
    substeps: int


def doubled(steps: int, goal: int) -> int:
    """The number nearest to ``goal``, as a factor, among steps, 2 steps, 4 steps, ..."""
    return int(steps * 2 ** max(round(math.log2(goal / steps)), 0))


def halvings(original: Original, steps: int, start: int | None = None, first: int | None = None) -> Halvings:
    """The way from a run to a student of so many steps.

    A run that is such a student itself goes on from its own steps; of any other one the first student has as many as are nearest to
    ``first`` or ``FIRST``, and the teacher as many as are nearest to ``start`` or ``TEACHER``: the students' number times a power of two.

    Raises:
        UserError: a number of steps that is not fewer, or that halving does not lead to.
    """
    theirs = original.recipe
    recommended = theirs.sampling.steps
    if steps < 1:
        raise UserError(f"a student samples in at least 1 step, not {steps}")
    if steps >= recommended:
        raise UserError(f"{original.name} samples in {recommended} steps already: ask for fewer than that, not {steps}")
    if isinstance(theirs.objective, ProgressiveObjective) and isinstance(theirs.sampling.grid, Strided):
        return _further(original, theirs.objective, steps)
    count = max(doubled(steps, start or TEACHER), 2 * steps)
    while count > steps and len(theirs.sampling.grid.times(theirs.process, count)) != count + 1:
        count //= 2  # a process in whole steps has no more
    if count == steps:
        raise UserError(f"the process of {original.name} has too few steps to get to {steps} by halving")
    most = min(doubled(steps, first or FIRST), count // 2)
    students = tuple(steps * 2**k for k in reversed(range(round(math.log2(most / steps)) + 1)))
    return Halvings(Strided(theirs.sampling.grid, count), students, count // most)


def _further(original: Original, objective: ProgressiveObjective, steps: int) -> Halvings:
    """From a student to one of fewer steps."""
    now = objective.steps
    reachable = [now // 2**k for k in range(1, now.bit_length()) if now % 2**k == 0]
    if steps not in reachable:
        there = f"can be halved to {', '.join(map(str, reachable))}" if reachable else "cannot be halved"
        raise UserError(f"the {now} steps of {original.name} {there}; for {steps} distil the run that it learned from")
    assert isinstance(objective.grid, Strided)
    return Halvings(objective.grid, tuple(n for n in reachable if n >= steps), 2)


@dataclass(frozen=True)
class Stage:
    """One student of the chain.

    Args:
        folder: of its run, in the last one's.
        steps: in which it gets where its teacher gets in ``substeps`` times as many.
        minutes: of its training.
        sampling: how it samples.
    """

    folder: str
    steps: int
    substeps: int
    minutes: float
    sampling: SamplingConfig

    @property
    def about(self) -> str:
        """One line for who trains it."""
        if self.substeps == 1:
            return "A student that has the guidance inside: one evaluation of the network in each step."
        plural = "s" if self.steps > 1 else ""
        return f"A student that samples in {self.steps} step{plural}, of a teacher of {self.steps * self.substeps}."


def as_the_teacher(original: Original, aim: Aim) -> SamplingConfig:
    """How a student samples that has learned the guidance and nothing else."""
    theirs = original.recipe.sampling
    return student_sampling(original, aim, theirs.sampler, theirs.grid, theirs.steps)


def _plan(original: Original, aim: Aim, plan: Halvings) -> list[Stage]:
    """The students, the first one first."""
    stages = []
    if aim.guidance_range and GUIDANCE_SCALE not in original.spec.conditions:
        stages.append(Stage(GUIDED, plan.grid.of, 1, GUIDED_MINUTES, as_the_teacher(original, aim)))
    for number, steps in enumerate(plan.steps):
        sampling = student_sampling(original, aim, DDIM(), plan.grid, steps)
        minutes = MINUTES * (2 if steps <= HARD else 1)
        stages.append(Stage(f"steps-{steps}", steps, plan.substeps if number == 0 else 2, minutes, sampling))
    return [*stages[:-1], replace(stages[-1], folder="")]


def progressive(original: Original, aim: Aim) -> dict[str, Recipe]:
    """The stages of progressive distillation, by the folders of their runs: guided (with a scale to choose), steps-16, steps-8, ... and the
    last one, the run itself.

    Raises:
        UserError: a number of steps that cannot be had, or guidance where there is none.
    """
    aim = settled_aim(original, aim)
    plan = halvings(original, aim.steps or STEPS, aim.start, aim.first)
    return _recipes(original, aim, plan.grid, _plan(original, aim, plan))


def guidance(original: Original, aim: Aim) -> dict[str, Recipe]:
    """The one stage of a student that has the guidance of its teacher inside, and else samples as that does.

    Raises:
        UserError: a number of steps, or nothing that guides.
    """
    if aim.steps is not None or aim.first is not None:
        raise UserError(
            "--method guidance leaves the steps as they are, and saves each its second evaluation: leave --steps and --first out"
        )
    aim = settled_aim(original, aim)
    if not is_guided(original, aim):
        raise UserError(
            f"nothing guides {original.name}, or it has learned it: ask for a --guidance-scale, if it has conditions"
        )
    count = aim.start or TEACHER
    while len(original.recipe.sampling.grid.times(original.recipe.process, count)) != count + 1:
        count //= 2  # a process in whole steps has no more
    stage = Stage("", count, 1, GUIDED_MINUTES, as_the_teacher(original, aim))
    return _recipes(original, aim, Strided(original.recipe.sampling.grid, count), [stage])


def is_guided(original: Original, aim: Aim) -> bool:
    """Whether the teacher, as it is to be distilled, asks for more than one belief in a step."""
    sampling, conditions = original.recipe.sampling, original.spec.conditions
    if sampling.autoguidance or sampling.classifier:
        return True
    scale = aim.guidance_scale if aim.guidance_scale is not None else sampling.guidance_scale
    free = any(condition.seen and not condition.always for condition in conditions.values())
    return free and GUIDANCE_SCALE not in conditions and (bool(aim.guidance_range) or scale != 1)


def _recipes(original: Original, aim: Aim, grid: Strided, plan: list[Stage]) -> dict[str, Recipe]:
    """The stages' recipes, each one's teacher the one before."""
    stages: dict[str, Recipe] = {}
    before = ""
    for stage in plan:
        # As seen from the run's own folder, so that the chain can be moved.
        teacher = f"../{before}" if before and stage.folder else before or original.name
        stages[stage.folder] = student(
            original,
            about=stage.about,
            teacher=teacher,
            objective=ProgressiveObjective(
                teacher=teacher,
                grid=grid,
                steps=stage.steps,
                substeps=stage.substeps,
                dropout=student_dropout(original),
                **guidance_of(aim, first=not before),
            ),
            training=student_training(original, stage.minutes),
            sampling=stage.sampling,
        )
        before = stage.folder
    return stages
