"""Pictures in two stages: a small one is drawn, and then enlarged."""

import dataclasses

from unstir.conditioning.derived import LowRes
from unstir.data import DataConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.recipes.quick import quick
from unstir.recipes.recipe import DenoiserConfig

cascade_base = dataclasses.replace(
    quick,
    about="The first stage of the recipe cascade: pictures of half the size.",
)

# What the small picture leaves open is about a third of a picture's spread, so it is decided at smaller noise.
rest_times = LogNormal(-1.6, 1.2)

cascade = dataclasses.replace(
    quick,
    about="Pictures in two stages (Ho, Saharia et al. 2022): small ones, and a model that enlarges them. Both are trained by one command.",
    data=DataConfig(),
    derived=LowRes(factor=2, max_level=0.15, level=0.05),
    denoiser=DenoiserConfig(given="low_res"),
    objective=DenoisingObjective(space="F", times=rest_times, dropout=0.1),
    # What is drawn is decided by the stage below, and its guidance; this one only adds what the small picture leaves open.
    sampling=dataclasses.replace(quick.sampling, guidance_scale=1.0, low_res_from="base"),
)
