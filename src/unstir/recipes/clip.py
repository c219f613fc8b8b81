"""A CLIP of pictures at all noise levels and their captions: to guide models by captions, and to judge what was drawn."""

from unstir.data import DataConfig
from unstir.networks import EncoderConfig
from unstir.objectives import ContrastiveObjective
from unstir.processes import EDM
from unstir.recipes.recipe import ClipConfig, Recipe
from unstir.training.config import AdamW, LinearDecay, TrainingConfig

clip = Recipe(
    about="A small noise-aware CLIP (Radford et al. 2021; GLIDE), which guides other models by captions and judges them: unstir sample RUN --clip THIS.",
    kinds=("image", "signal", "volume", "points"),
    data=DataConfig(text="bytes"),
    process=EDM(),
    network=EncoderConfig(),
    denoiser=ClipConfig(),
    objective=ContrastiveObjective(),
    training=TrainingConfig(
        minutes=3.0,
        batch_size=128,
        learning_rate=1e-3,
        decay=LinearDecay(0.1),
        optimizer=AdamW(weight_decay=0.2),  # the paper's
        held_out=0.1,
        sample_every=500,
    ),
)
