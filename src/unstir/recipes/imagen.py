"""Imagen's way from text to pictures, at a size for two processor cores.

Kept of Imagen (Saharia et al. 2022, https://arxiv.org/abs/2205.11487): a text encoder that was trained on text alone and stays as it is;
a cascade, told the captions in every stage; noise on the smaller picture at a level that the network is told (from 0 to 0.3; in the paper
to 1); the efficient U-Net in the stage that enlarges; captions dropped out in a tenth of the training; a large guidance
scale. Not kept: dynamic thresholding, which turns white backgrounds grey (--dynamic-threshold 99.5 is the paper's); T5-XXL (a small sentence
encoder that comes as a package: --data.text google/t5-v1_1-xxl where there is room for it); a third stage; the cosine process (EDM's). Not
the paper's: the second stage corrects what the small picture tells.
"""

import dataclasses

from unstir.conditioning.derived import LowRes
from unstir.data import DataConfig
from unstir.networks import UNetConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.recipes.cascade import rest_times
from unstir.recipes.quick import quick
from unstir.recipes.recipe import DenoiserConfig

_sampling = dataclasses.replace(quick.sampling, guidance_scale=4.0)

imagen_base = dataclasses.replace(
    quick,
    about="The first stage of the recipe imagen: small pictures of captions.",
    data=DataConfig(text="minilm", labels=False),
    objective=DenoisingObjective(space="F", times=LogNormal(0.8, 1.6), dropout=0.1),  # much noise: see glide
    training=dataclasses.replace(quick.training, minutes=5.0),
    sampling=_sampling,
)

imagen = dataclasses.replace(
    imagen_base,
    about="Text to pictures, Imagen's way (Saharia et al. 2022): frozen text encoder, two stages, large guidance. For data with captions.",
    derived=LowRes(factor=2, max_level=0.3, level=0.05),
    denoiser=DenoiserConfig(given="low_res"),
    objective=DenoisingObjective(space="F", times=rest_times, dropout=0.1),
    network=UNetConfig(
        channels=24,
        multipliers=(1, 2, 4),
        blocks=(1, 2),
        middle=4,
        attention=(2,),
        head_channels=32,
        patch=1,
        efficient=True,
    ),
    sampling=dataclasses.replace(_sampling, guidance_scale=1.0, low_res_from="base"),
)
