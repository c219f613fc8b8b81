"""Denoising diffusion probabilistic models, as published, at a size for small pictures."""

from unstir.networks import UNetConfig
from unstir.objectives import DenoisingObjective
from unstir.processes import LinearVP
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import DDPM
from unstir.samplers.grids import Uniform
from unstir.training.config import AdamW, ConstantDecay, TrainingConfig
from unstir.training.ema import ExponentialAverage

ddpm = Recipe(
    about="DDPM (Ho, Jain & Abbeel 2020): T = 1000, linear betas, eps-prediction, the simple loss, ancestral sampling.",
    kinds=("image", "signal", "volume"),
    process=LinearVP(),
    network=UNetConfig(),
    denoiser=DenoiserConfig(parameterization="eps", sigma_data=1.0),
    objective=DenoisingObjective(space="eps", dropout=0.1),
    training=TrainingConfig(
        steps=100_000,
        batch_size=128,
        learning_rate=2e-4,
        warmup=0.01,
        decay=ConstantDecay(),
        optimizer=AdamW(beta_2=0.999),
        average=ExponentialAverage(0.9999),
        sample_every=5000,
    ),
    sampling=SamplingConfig(DDPM("large"), Uniform(), steps=1000),
)
