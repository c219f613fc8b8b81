"""GLIDE's inpainting: a trained run, fine-tuned with what is left around a hole as further channels of its input."""

from unstir.conditioning.derived import Hole
from unstir.networks import UNetConfig
from unstir.objectives import DenoisingObjective, LogNormal
from unstir.processes import EDM
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import DPMpp2M
from unstir.samplers.grids import Karras
from unstir.training.config import MuonConfig, TrainingConfig

# Of the paper: random regions of the samples are erased, and what remains goes in beside x_t together with its mask, by weights that
# start at 0 (four channels more for colours). The base may be any run, with captions or without; without --base it starts from nothing.
glide_inpaint = Recipe(
    about="GLIDE's inpainting fine-tune (Nichol et al. 2022): a run that you trained learns to fill holes: --base RUN; unstir edit inpaint.",
    kinds=("image", "signal", "volume"),
    derived=Hole(),
    process=EDM(sigma_max=60.0),
    network=UNetConfig(),
    denoiser=DenoiserConfig(parameterization="edm"),
    objective=DenoisingObjective(space="F", times=LogNormal(-0.9, 1.2), dropout=0.1),
    training=TrainingConfig(minutes=3.0, batch_size=32, learning_rate=1e-3, optimizer=MuonConfig()),
    sampling=SamplingConfig(DPMpp2M(), Karras(sigma_min=0.02), 12),
)
