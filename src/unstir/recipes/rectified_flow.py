"""Rectified flow: straight lines between noise and data."""

import dataclasses

from unstir.objectives import DenoisingObjective, LogitNormal
from unstir.processes import RectifiedFlow
from unstir.recipes.edm import edm
from unstir.recipes.recipe import DenoiserConfig, SamplingConfig
from unstir.samplers import Heun
from unstir.samplers.grids import Uniform

rectified_flow = dataclasses.replace(
    edm,
    about="Rectified flow (Liu et al. 2022; logit-normal times of Esser et al. 2024): straight lines, Heun's method in 20 steps.",
    process=RectifiedFlow(),
    denoiser=DenoiserConfig(parameterization="flow", sigma_data=1.0),
    objective=DenoisingObjective(space="flow", times=LogitNormal(), dropout=0.1),
    sampling=SamplingConfig(Heun(), Uniform(), steps=20),
)
