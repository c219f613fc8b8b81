"""Ways to distil a run into one that samples in fewer steps, by the names people type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unstir.recipes.consistency import continuous, distillation, tuning
from unstir.recipes.distillation import Aim, Original
from unstir.recipes.matching import matching
from unstir.recipes.progressive import guidance, progressive
from unstir.recipes.recipe import Recipe


@dataclass(frozen=True)
class Method:
    """A way to distil.

    Args:
        about: one line for the list of methods.
        stages: what is trained, the first one first, by the folders of the runs in the student's own; "" is the student itself.
    """

    about: str
    stages: Callable[[Original, Aim], dict[str, Recipe]]


METHODS: dict[str, Method] = {
    "progressive": Method("half as many steps, and half as many again (Salimans & Ho 2022); 4 steps", progressive),
    "guidance": Method("the guidance inside: as many steps, one evaluation in each (Meng et al. 2023)", guidance),
    "consistency": Method(
        "one network evaluation is a sample, a second one a better one (Song et al. 2023); 2 steps", distillation
    ),
    "consistency-tuning": Method(
        "the same learned from the data, not from the teacher's guided paths (Geng et al. 2024); 2 steps", tuning
    ),
    "consistency-continuous": Method(
        "consistency without a grid of times, by the answer's derivative (Lu & Song 2024); 2 steps", continuous
    ),
    "matching": Method(
        "samples that pass for the teacher's, whichever noise they come from (Yin et al. 2024); 1 step", matching
    ),
}
"""A new one is a function in a file here, and a line."""
