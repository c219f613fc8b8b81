"""The fifth word: a Recipe, the typed sentence that puts process, network, objective and sampler together with data and training."""

from __future__ import annotations

from dataclasses import dataclass, field

from unstir.conditioning.derived import Derived, Nothing
from unstir.data import DataConfig
from unstir.networks import NetworkConfig, UNetConfig
from unstir.objectives import DenoisingObjective, Objective
from unstir.process import Process
from unstir.processes import EDM
from unstir.recipes.module import AutoencoderConfig, ClipConfig, DenoiserConfig, ModuleConfig, NoisyClassifierConfig
from unstir.recipes.sampling import Around, Guides, SamplingConfig
from unstir.training.config import TrainingConfig

__all__ = [
    "Around",
    "AutoencoderConfig",
    "ClipConfig",
    "DenoiserConfig",
    "Guides",
    "ModuleConfig",
    "NoisyClassifierConfig",
    "Recipe",
    "SamplingConfig",
]


@dataclass(frozen=True)
class Recipe:
    """An experiment: everything needed to train a model and to sample from it.

    Args:
        about: one line for the list of recipes.
        kinds: of data it is for.
    """

    about: str = ""
    """What it is for."""
    base: str = ""
    """Run folder whose weights training starts from (unstir train RECIPE --base RUN); RUN@STEP: as it was at that step's checkpoint."""
    autoencoder: str = ""
    """Train in the latents of this autoencoder instead of on the data: a run of unstir train autoencoder, a folder of diffusers' AutoencoderKL or
    AutoencoderTiny, taef2:FOLDER, or haar:2 (wavelets, nothing to train). "?": the recipe needs one."""
    vectors: str = ""
    """Learn the vectors that this CLIP (a run of unstir train clip) gives the samples, instead of the samples themselves: a prior. "?": the
    recipe needs one."""
    kinds: tuple[str, ...] = ("image",)
    """Kinds of data it can train on: image, signal, volume, points."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where the data is and how to read it."""
    derived: Derived = field(default_factory=Nothing)
    """Conditions that are computed from the samples themselves: a smaller copy, edges, ..."""
    process: Process = field(default_factory=EDM)
    """How data turn into noise."""
    network: NetworkConfig = field(default_factory=UNetConfig)
    """The network."""
    denoiser: ModuleConfig = field(default_factory=DenoiserConfig)
    """What the network's output means: a denoiser, or something else that trains in the same way."""
    objective: Objective = field(default_factory=DenoisingObjective)
    """What training minimises."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How long, how fast and with what it is trained."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """The recommended way to sample."""
