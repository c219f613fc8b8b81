"""Pictures in two stages: a small one is drawn, and then enlarged."""

import dataclasses

from unstir.conditioning.derived import LowRes
from unstir.data import DataConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.recipes.quick import quick

cascade_base = dataclasses.replace(
    quick,
    about="The first stage of the recipe cascade: pictures of half the size.",
)

cascade = dataclasses.replace(
    quick,
    about="Pictures in two stages (Ho, Saharia et al. 2022): small ones, and a model that enlarges them. Both are trained by one command.",
    data=DataConfig(),
    derived=LowRes(factor=2, max_level=0.5, level=0.1),
    objective=DenoisingObjective(space="F", times=LogNormal(-0.9, 1.2), dropout=0.1),
    # What is drawn is decided by the stage below, and its guidance; this one only adds what the small picture leaves open.
    sampling=dataclasses.replace(quick.sampling, guidance_scale=1.0, low_res_from="base"),
)
