"""ControlNet: a trained run, steered by a condition that is computed from pictures."""

from unstir.conditioning.derived import Edges
from unstir.networks import ControlNetConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import DPMpp2M
from unstir.samplers.grids import Karras
from unstir.training.config import MuonConfig, TrainingConfig

# Process, denoiser, objective and sampling are those of the run of --base; of these here only the drop-out is kept where it is more.
controlnet = Recipe(
    about="ControlNet (Zhang et al. 2023): steers a run that you trained, which stays as it is, by edges or another --derived: --base RUN.",
    kinds=("image", "signal", "volume"),
    derived=Edges(),
    process=EDM(sigma_max=60.0),
    network=ControlNetConfig(),
    denoiser=DenoiserConfig(parameterization="edm"),
    objective=DenoisingObjective(space="F", times=LogNormal(-0.9, 1.2), dropout=0.1),
    # More than a start from nothing takes: what is added to the frozen base begins at 0, and has a long way to go.
    training=TrainingConfig(minutes=3.0, batch_size=32, learning_rate=3e-3, optimizer=MuonConfig()),
    sampling=SamplingConfig(DPMpp2M(), Karras(sigma_min=0.02), 12),
)
