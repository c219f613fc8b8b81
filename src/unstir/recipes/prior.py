"""unCLIP's prior: from a caption to the vector that a CLIP gives a picture of it.

Kept of the paper (Ramesh et al. 2022, section 2.2, https://arxiv.org/abs/2204.06125): a transformer over the caption's tokens, the CLIP's vector of the caption,
the noise level and the noisy embedding; it predicts the embedding itself; a tenth of the captions is dropped; two samples are
drawn and the one nearer to the caption's vector is taken. Not kept: the mask that lets tokens see only what stands before them.
"""

from unstir.codec import NEEDED
from unstir.data import DataConfig
from unstir.networks import PriorNetworkConfig
from unstir.objectives import DenoisingObjective
from unstir.processes import CosineVP
from unstir.recipes.recipe import DenoiserConfig, Recipe, SamplingConfig
from unstir.samplers import DPMpp2M
from unstir.samplers.grids import Uniform
from unstir.training.config import AdamW, TrainingConfig

prior = Recipe(
    about="unCLIP's prior (Ramesh et al. 2022): from captions to the vectors that a CLIP gives pictures: --clip RUN.",
    vectors=NEEDED,
    kinds=("points",),
    data=DataConfig(text="bytes", labels=False),
    process=CosineVP(),
    network=PriorNetworkConfig(),
    denoiser=DenoiserConfig(parameterization="x_0"),
    objective=DenoisingObjective(space="x_0", dropout=0.1),
    training=TrainingConfig(minutes=2.0, batch_size=128, learning_rate=1e-3, optimizer=AdamW(weight_decay=0.06)),
    sampling=SamplingConfig(DPMpp2M(), Uniform(), 25, guidance_scale=1.5),
)
