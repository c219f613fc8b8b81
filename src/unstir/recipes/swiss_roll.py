"""The swiss roll on which diffusion models began."""

from unstir.data import DataConfig
from unstir.networks import MLPConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import Heun
from unstir.samplers.grids import Karras
from unstir.training.config import TrainingConfig

swiss_roll = Recipe(
    about="Points in the plane or in any dimension (Sohl-Dickstein et al. 2015, figure 1), and tables of numbers.",
    kinds=("points",),
    data=DataConfig(source="swiss-roll"),
    process=EDM(sigma_min=0.002, sigma_max=20.0),
    network=MLPConfig(),
    denoiser=DenoiserConfig(parameterization="edm"),
    objective=DenoisingObjective(space="F", times=LogNormal(-1.5, 1.5), dropout=0.1),
    training=TrainingConfig(steps=4000, batch_size=256, learning_rate=2e-3, precision="fp32"),
    sampling=SamplingConfig(Heun(), Karras(), steps=24, labels="cycle"),
)
