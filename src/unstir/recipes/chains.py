"""Recipes that train several models one after the other: the stages of a cascade, an autoencoder with what works in its latents, unCLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unstir.codecs import INSIDE
from unstir.conditioning.derived import LowRes
from unstir.conditioning.derived.low_res import small_grid
from unstir.recipes import RECIPES
from unstir.recipes.cascade import cascade_base
from unstir.recipes.imagen import imagen_base
from unstir.recipes.prior import prior
from unstir.recipes.recipe import Recipe
from unstir.recipes.unclip import unclip_clip

CHAINS: dict[str, Mapping[str, Recipe]] = {
    "cascade": {"base": cascade_base},
    "imagen": {"base": imagen_base},
    "unclip": {"clip": unclip_clip, "prior": replace(prior, vectors="../clip")},
}
"""By the name of a recipe: the stages that are trained before it, in this order, each under the name of its folder in the run's.
A new cascade is a recipe that enlarges (``derived`` is a LowRes, ``sampling.low_res_from`` the folder of the stage below) and a line here."""
BROUGHT: dict[str, tuple[str, ...]] = {"unclip": ("clip", "prior")}
"""By the name of a recipe: the stages in place of which a run can be named that is trained already (--STAGE RUN)."""


def stages_of(name: str) -> dict[str, Recipe]:
    """The stages of a chain, the smallest first; the last is the recipe itself, and its folder the run's own, ""."""
    return {**CHAINS[name], "": RECIPES[name]}


def with_autoencoder(recipe: Recipe) -> dict[str, Recipe]:
    """The stages of a recipe that works in latents and trains its autoencoder first, in the folder where a run keeps it."""
    first = RECIPES["autoencoder"]
    data = replace(recipe.data, text="", groups=0)
    return {INSIDE: replace(first, data=data), "": replace(recipe, autoencoder=INSIDE)}


def with_sizes(stages: Mapping[str, Recipe], size: tuple[int, ...]) -> dict[str, Recipe]:
    """The stages with the sizes at which they read the data: the last one's is ``size``, each other's what the one above shrinks its own
    to; an autoencoder reads them as what works in its latents does. Groups are the first stage's alone: those found at two sizes are not
    the same."""
    sized: dict[str, Recipe] = {}
    largest = size
    for folder, recipe in reversed(list(stages.items())):
        enlarges = isinstance(recipe.derived, LowRes)
        own = largest if folder == INSIDE else size
        data = replace(recipe.data, size=own, groups=0 if enlarges else recipe.data.groups)
        sized[folder] = replace(recipe, data=data)
        size = small_grid(size, recipe.derived.factor) if isinstance(recipe.derived, LowRes) else size
    return dict(reversed(list(sized.items())))
