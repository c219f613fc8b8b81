"""Improved DDPM: the cosine schedule, a learned variance, and strided sampling; trained by L_hybrid, or by the bound itself."""

import dataclasses

from unstir.objectives import HybridObjective, VariationalObjective
from unstir.processes import CosineVP
from unstir.recipes.ddpm import ddpm
from unstir.recipes.recipe import DenoiserConfig, SamplingConfig
from unstir.samplers import DDPM
from unstir.samplers.grids import Uniform

improved_ddpm = dataclasses.replace(
    ddpm,
    about="Improved DDPM (Nichol & Dhariwal 2021): cosine schedule, learned variance, L_hybrid, 100 strided steps.",
    process=CosineVP(),
    denoiser=DenoiserConfig(parameterization="eps", sigma_data=1.0, learn_variance=True),
    objective=HybridObjective(dropout=0.1),
    sampling=SamplingConfig(DDPM("learned"), Uniform(), steps=100),
)

improved_ddpm_vlb = dataclasses.replace(
    improved_ddpm,
    about="Improved DDPM for likelihoods: L_vlb with importance-sampled steps instead of L_hybrid; fewer bits/dim, worse pictures.",
    objective=VariationalObjective(dropout=0.1),
)
