"""The demonstration and the default: class-conditional pictures in a few minutes on a laptop's processor."""

from unstir.data import DataConfig
from unstir.networks import UNetConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import DPMpp2M
from unstir.samplers.grids import Karras
from unstir.training.config import MuonConfig, TrainingConfig

quick = Recipe(
    about="Pictures in three minutes on two processor cores: EDM with a small U-Net, labels or found groups, guidance. The default.",
    kinds=("image",),
    data=DataConfig(groups=32),
    process=EDM(sigma_max=60.0),
    network=UNetConfig(),
    denoiser=DenoiserConfig(parameterization="edm"),
    objective=DenoisingObjective(space="F", times=LogNormal(-0.9, 1.2), dropout=0.12),
    training=TrainingConfig(minutes=3.0, batch_size=32, learning_rate=2e-3, optimizer=MuonConfig()),
    # Guided only where it pays: above, it costs variety, and below there is nothing left to decide.
    sampling=SamplingConfig(
        DPMpp2M(), Karras(sigma_min=0.02), 12, guidance_scale=2.5, guidance_from=0.2, guidance_to=5.0
    ),
)
