"""Recipes that train several models one after the other: the stages of a cascade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unstir.conditioning.derived import LowRes
from unstir.conditioning.derived.low_res import small_grid
from unstir.recipes import RECIPES
from unstir.recipes.cascade import cascade_base
from unstir.recipes.imagen import imagen_base
from unstir.recipes.recipe import Recipe

CHAINS: dict[str, Mapping[str, Recipe]] = {"cascade": {"base": cascade_base}, "imagen": {"base": imagen_base}}
"""By the name of a recipe: the stages that are trained before it, the smallest first, each under the name of its folder in the run's.
A new chain is a recipe that enlarges (``derived`` is a LowRes, ``sampling.low_res_from`` the folder of the stage below) and a line here."""


def stages_of(name: str) -> dict[str, Recipe]:
    """The stages of a chain, the smallest first; the last is the recipe itself, and its folder the run's own, ""."""
    return {**CHAINS[name], "": RECIPES[name]}


def with_sizes(stages: Mapping[str, Recipe], size: tuple[int, ...]) -> dict[str, Recipe]:
    """The stages with the sizes at which they read the data: the last one's is ``size``, each other's what the one above shrinks its own
    to. Groups are the first stage's alone: those found at two sizes are not the same."""
    sized: dict[str, Recipe] = {}
    for folder, recipe in reversed(list(stages.items())):
        enlarges = isinstance(recipe.derived, LowRes)
        data = replace(recipe.data, size=size, groups=0 if enlarges else recipe.data.groups)
        sized[folder] = replace(recipe, data=data)
        size = small_grid(size, recipe.derived.factor) if isinstance(recipe.derived, LowRes) else size
    return dict(reversed(list(sized.items())))
