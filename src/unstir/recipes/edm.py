"""EDM, as published, at a size for small pictures."""

from unstir.networks import UNetConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import Heun
from unstir.samplers.grids import Karras
from unstir.training.config import AdamW, ConstantDecay, TrainingConfig
from unstir.training.ema import PowerAverage

edm = Recipe(
    about="EDM (Karras et al. 2022): preconditioned network, log-normal noise levels, Heun's method in 18 steps.",
    kinds=("image", "signal", "volume"),
    process=EDM(),
    network=UNetConfig(),
    denoiser=DenoiserConfig(parameterization="edm"),
    objective=DenoisingObjective(space="F", times=LogNormal(-1.2, 1.2), dropout=0.1),
    training=TrainingConfig(
        steps=100_000,
        batch_size=128,
        learning_rate=1e-3,
        decay=ConstantDecay(),
        optimizer=AdamW(beta_2=0.999),
        average=PowerAverage(0.05),
        sample_every=5000,
    ),
    sampling=SamplingConfig(Heun(), Karras(), steps=18),
)
