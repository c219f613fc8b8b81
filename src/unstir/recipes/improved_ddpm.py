"""Improved DDPM: the cosine schedule and strided sampling. Its learned variance needs the hybrid objective, which is not here yet."""

import dataclasses

from unstir.processes import CosineVP
from unstir.recipes.ddpm import ddpm
from unstir.recipes.recipe import SamplingConfig
from unstir.samplers import DDPM
from unstir.samplers.grids import Uniform

improved_ddpm = dataclasses.replace(
    ddpm,
    about="Improved DDPM (Nichol & Dhariwal 2021): DDPM with the cosine schedule and 100 strided steps (variance not learned).",
    process=CosineVP(),
    sampling=SamplingConfig(DDPM(), Uniform(), steps=100),
)
