"""A classifier of noisy data, to guide a denoiser by."""

from unstir.networks import EncoderConfig
from unstir.objectives import NoisyClassificationObjective
from unstir.processes import EDM
from unstir.recipes.recipe import NoisyClassifierConfig, Recipe
from unstir.training.config import AdamW, LinearDecay, TrainingConfig

classifier = Recipe(
    about="A noisy classifier (Dhariwal & Nichol 2021), by whose gradient other models are guided: unstir sample RUN --classifier THIS.",
    kinds=("image", "signal", "volume", "points"),
    process=EDM(),
    network=EncoderConfig(),
    denoiser=NoisyClassifierConfig(),
    objective=NoisyClassificationObjective(),
    training=TrainingConfig(
        minutes=3.0,
        batch_size=64,
        learning_rate=1e-3,
        decay=LinearDecay(0.1),
        optimizer=AdamW(weight_decay=0.05),  # the paper's
        held_out=0.1,
        sample_every=500,
    ),
)
