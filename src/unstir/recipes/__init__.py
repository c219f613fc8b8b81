"""Recipes by name. A new one is a small file here and a line in ``RECIPES``."""

from unstir.errors import UserError, did_you_mean
from unstir.recipes.autoencoder import autoencoder
from unstir.recipes.cascade import cascade
from unstir.recipes.classifier import classifier
from unstir.recipes.clip import clip
from unstir.recipes.consistency import consistency
from unstir.recipes.controlnet import controlnet
from unstir.recipes.ddpm import ddpm
from unstir.recipes.dit import dit
from unstir.recipes.ecg import ecg
from unstir.recipes.edm import edm
from unstir.recipes.glide import glide
from unstir.recipes.glide_inpaint import glide_inpaint
from unstir.recipes.imagen import imagen
from unstir.recipes.improved_ddpm import improved_ddpm, improved_ddpm_vlb
from unstir.recipes.latent import latent
from unstir.recipes.ncsn import ncsn, ncsnv2
from unstir.recipes.prior import prior
from unstir.recipes.quick import quick
from unstir.recipes.recipe import (
    AutoencoderConfig,
    ClipConfig,
    DenoiserConfig,
    Guides,
    ModuleConfig,
    NoisyClassifierConfig,
    Recipe,
    SamplingConfig,
)
from unstir.recipes.rectified_flow import rectified_flow
from unstir.recipes.score_sde import score_sde_subvp, score_sde_ve, score_sde_vp
from unstir.recipes.sprites import sprites
from unstir.recipes.swiss_roll import swiss_roll
from unstir.recipes.unclip import unclip

RECIPES: dict[str, Recipe] = {
    "quick": quick,
    "dit": dit,
    "glide": glide,
    "cascade": cascade,
    "imagen": imagen,
    "ddpm": ddpm,
    "improved-ddpm": improved_ddpm,
    "improved-ddpm-vlb": improved_ddpm_vlb,
    "edm": edm,
    "rectified-flow": rectified_flow,
    "sprites": sprites,
    "swiss-roll": swiss_roll,
    "consistency": consistency,
    "ecg": ecg,
    "ncsn": ncsn,
    "ncsnv2": ncsnv2,
    "score-sde-vp": score_sde_vp,
    "score-sde-subvp": score_sde_subvp,
    "score-sde-ve": score_sde_ve,
    "classifier": classifier,
    "clip": clip,
    "autoencoder": autoencoder,
    "latent": latent,
    "unclip": unclip,
    "prior": prior,
    "controlnet": controlnet,
    "glide-inpaint": glide_inpaint,
}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UserError: no such recipe, with the nearest names.
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe '{name}'; {did_you_mean(name, RECIPES)}")
    return RECIPES[name]


__all__ = [
    "RECIPES",
    "AutoencoderConfig",
    "ClipConfig",
    "DenoiserConfig",
    "Guides",
    "ModuleConfig",
    "NoisyClassifierConfig",
    "Recipe",
    "SamplingConfig",
    "recipe",
]
