"""The 16x16 pixel-art sprites of the course "How Diffusion Models Work", with a context vector."""

from unstir.data import DataConfig
from unstir.networks import ContextUNetConfig
from unstir.objectives import DenoisingObjective
from unstir.processes import LinearVP
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import DDPM
from unstir.samplers.grids import Uniform
from unstir.training.config import AdamW, LinearDecay, TrainingConfig

sprites = Recipe(
    about="Pixel-art sprites with a context vector: the course's context_unet, T = 500, Adam with linear decay, batch 100.",
    kinds=("image",),
    data=DataConfig(size=(16, 16)),
    process=LinearVP(steps=500, beta_start=1e-4, beta_end=0.02),
    network=ContextUNetConfig(),
    denoiser=DenoiserConfig(parameterization="eps", sigma_data=1.0),
    objective=DenoisingObjective(space="eps", dropout=0.1, stratified=False),
    training=TrainingConfig(
        minutes=10.0,
        batch_size=100,
        learning_rate=1e-3,
        warmup=0.0,
        decay=LinearDecay(0.0),
        optimizer=AdamW(beta_2=0.999),
    ),
    sampling=SamplingConfig(DDPM(), Uniform(), steps=100, guidance_scale=2.5),
)
