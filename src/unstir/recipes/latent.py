"""Latent diffusion: the demonstration's recipe in the latents of an autoencoder."""

import dataclasses
import math

from unstir.codec import NEEDED
from unstir.networks import UNetConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.recipes.quick import quick
from unstir.samplers.grids import Karras

# Latents have a standard deviation of 1, pictures in [-1, 1] of about a half: the same noise is twice as large beside them.
TWICE = math.log(2)

latent = dataclasses.replace(
    quick,
    about="Latent diffusion (Rombach et al. 2022): quick in the latents of an autoencoder: --autoencoder RUN, or --train-autoencoder.",
    autoencoder=NEEDED,
    kinds=("image", "signal", "volume"),
    process=EDM(sigma_max=120.0),
    # The autoencoder has made the grid coarser already.
    network=UNetConfig(channels=96, patch=1),
    objective=DenoisingObjective(space="F", times=LogNormal(round(-0.9 + TWICE, 2), 1.2), dropout=0.12),
    sampling=dataclasses.replace(quick.sampling, grid=Karras(sigma_min=0.04), guidance_from=0.4, guidance_to=10.0),
)
