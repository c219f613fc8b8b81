"""The demonstration and the default: class-conditional pictures in a few minutes on a laptop's processor."""

from unstir.data import DataConfig
from unstir.networks import UNetConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import Heun
from unstir.samplers.grids import Karras
from unstir.training.config import MuonConfig, TrainingConfig

quick = Recipe(
    about="Pictures in three minutes on two processor cores: EDM with a small U-Net, labels and guidance. The default.",
    kinds=("image",),
    data=DataConfig(),
    process=EDM(sigma_max=60.0),
    network=UNetConfig(),
    denoiser=DenoiserConfig(parameterization="edm"),
    objective=DenoisingObjective(space="F", times=LogNormal(-0.9, 1.2), dropout=0.12),
    training=TrainingConfig(minutes=3.0, batch_size=32, learning_rate=2e-3, optimizer=MuonConfig()),
    # A net that has seen each picture 25 times leaves marks; fresh noise on the way down (churn) wipes off earlier ones.
    sampling=SamplingConfig(Heun(churn=0.3), Karras(sigma_min=0.01), 16, guidance_scale=2.0, guidance_from=0.1),
)
