"""Signals in one dimension: heartbeats."""

from unstir.networks import UNetConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import Heun
from unstir.samplers.grids import Karras
from unstir.training.config import MuonConfig, TrainingConfig

ecg = Recipe(
    about="Signals of one or more channels, such as heartbeats of an ECG, with their classes.",
    kinds=("signal",),
    process=EDM(),
    network=UNetConfig(channels=32, multipliers=(1, 2, 2, 2), attention=(3,)),
    denoiser=DenoiserConfig(parameterization="edm"),
    objective=DenoisingObjective(space="F", times=LogNormal(-1.2, 1.2), dropout=0.1),
    training=TrainingConfig(minutes=5.0, batch_size=32, learning_rate=2e-3, optimizer=MuonConfig()),
    sampling=SamplingConfig(Heun(), Karras(), steps=18),
)
