"""An autoencoder of one's own data, for diffusion in its latents."""

from unstir.networks import AutoencoderNetworkConfig
from unstir.objectives import ReconstructionObjective
from unstir.recipes.recipe import AutoencoderConfig, Recipe
from unstir.training.config import LinearDecay, MuonConfig, TrainingConfig

autoencoder = Recipe(
    about="An autoencoder (Rombach et al. 2022), in whose latents other models work: unstir train latent --autoencoder THIS.",
    kinds=("image", "signal", "volume"),
    network=AutoencoderNetworkConfig(),
    denoiser=AutoencoderConfig(),
    objective=ReconstructionObjective(),
    training=TrainingConfig(
        minutes=5.0,
        batch_size=16,
        learning_rate=2e-3,
        decay=LinearDecay(0.4),
        optimizer=MuonConfig(),
        held_out=0.1,
        sample_every=1000,
    ),
)
