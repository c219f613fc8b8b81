"""Distribution matching: a student whose samples are the teacher's as a whole, and not one by one."""

from __future__ import annotations

from dataclasses import replace

from unstir.errors import UserError
from unstir.objectives import DistillationObjective, MatchingObjective
from unstir.recipes.consistency import asked_steps, distillation, stops
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
from unstir.recipes.recipe import Recipe
from unstir.samplers import Consistency

STEPS = 1
"""Of a student, where nobody said how many."""
MINUTES = 10.0
"""Of training, after those of the consistency model that it begins as."""
FIRST = "consistency"
"""Folder of that one: matching mends samples, and has to begin with some."""


def matching(original: Original, aim: Aim) -> dict[str, Recipe]:
    """The stages of distribution matching: a consistency model, distilled, and the run itself, which begins with its weights. The former
    is left out where another run is named to begin with.

    Raises:
        UserError: a student for a teacher, as many steps as the teacher's or more, guidance where there is none, or a range of it.
    """
    if isinstance(original.recipe.objective, DistillationObjective):
        raise UserError(
            f"{original.name} was distilled or is a consistency model: it draws samples, and has no belief about noised ones to match. "
            "Distil a run that was trained to denoise"
        )
    base, aim = aim.base, settled_aim(original, replace(aim, base=None))
    steps = asked_steps(original, aim, STEPS)
    objective = MatchingObjective(
        teacher=original.name,
        grid=stops(original),
        steps=steps,
        dropout=student_dropout(original),
        **guidance_of(aim),
    )
    first = {} if base else {FIRST: distillation(original, replace(aim, steps=steps))[""]}
    return {
        **first,
        "": student(
            original,
            about=f"A student whose samples, in {steps} step{'s' if steps > 1 else ''}, are to pass for its teacher's.",
            teacher=base or FIRST,
            objective=objective,
            training=student_training(original, MINUTES),
            sampling=student_sampling(original, aim, Consistency(), stops(original), steps),
        ),
    }
