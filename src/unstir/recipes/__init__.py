"""Recipes by name. A new one is a small file here and a line in ``RECIPES``."""

from unstir.errors import UserError, did_you_mean
from unstir.recipes.ddpm import ddpm
from unstir.recipes.ecg import ecg
from unstir.recipes.edm import edm
from unstir.recipes.improved_ddpm import improved_ddpm
from unstir.recipes.quick import quick
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.recipes.rectified_flow import rectified_flow
from unstir.recipes.sprites import sprites
from unstir.recipes.swiss_roll import swiss_roll

RECIPES: dict[str, Recipe] = {
    "quick": quick,
    "ddpm": ddpm,
    "improved-ddpm": improved_ddpm,
    "edm": edm,
    "rectified-flow": rectified_flow,
    "sprites": sprites,
    "swiss-roll": swiss_roll,
    "ecg": ecg,
}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UserError: no such recipe, with the nearest names.
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe '{name}'; {did_you_mean(name, RECIPES)}")
    return RECIPES[name]


__all__ = ["RECIPES", "DenoiserConfig", "Recipe", "SamplingConfig", "recipe"]
