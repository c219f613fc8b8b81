"""The fifth word: a Recipe, the typed sentence that puts process, network, objective and sampler together with data and training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from unstir.data import DataConfig, DataSpec
from unstir.denoiser import Denoiser, NetDenoiser
from unstir.errors import UserError
from unstir.guidance import ClassifierFreeGuidance, ClipX0
from unstir.linear import CorrectingDenoiser, LinearDenoiser
from unstir.networks import NetworkConfig, UNetConfig
from unstir.objectives import DenoisingObjective, Objective
from unstir.process import Process
from unstir.processes import EDM
from unstir.samplers import Heun
from unstir.samplers.grids import Karras
from unstir.sampling import Grid, Sampler
from unstir.training.config import TrainingConfig

COMPONENT_NUMBERS = 2**22
"""Most numbers that the components of a linear denoiser may have together."""


@dataclass(frozen=True)
class DenoiserConfig:
    """What the network's output means."""

    parameterization: Literal["eps", "x_0", "v", "score", "flow", "edm"] = "edm"
    """Which mix of data and noise the network gives."""
    sigma_data: float = 0.0
    """Standard deviation of the data, for the scale of the network's input and for edm. 0: measured from the data."""
    linear_components: int = 0
    """Let the network correct the best linear denoiser of the data, known from their mean and this many principal components, instead
    of predicting from their standard deviation alone (0). For parameterization edm."""
    learn_variance: bool = False
    """The network also gives the reverse step's variance (improved DDPM); its objective must train it."""

    def build(self, network: NetworkConfig, process: Process, spec: DataSpec) -> NetDenoiser:
        """A freshly initialised denoiser for such data.

        Raises:
            UserError: a linear denoiser to be corrected, and a parameterisation other than edm.
        """
        channels = spec.shape[0] * (2 if self.learn_variance else 1)
        sigma_data = self.sigma_data or spec.std
        # Larger pictures get fewer components: the linear denoiser must not outgrow the network.
        components = min(self.linear_components, spec.dimensions, COMPONENT_NUMBERS // spec.dimensions)
        if components and self.parameterization != "edm":
            raise UserError(
                f"denoiser.linear_components works with denoiser.parameterization edm, not {self.parameterization}; set it to 0"
            )
        if components:
            return CorrectingDenoiser(
                network.build(spec, out_channels=channels, in_channels=2 * spec.shape[0]),
                LinearDenoiser(process, spec.shape, components),
                sigma_data=sigma_data,
                learn_variance=self.learn_variance,
            )
        return NetDenoiser(
            network.build(spec, out_channels=channels),
            process,
            self.parameterization,
            sigma_data=sigma_data,
            learn_variance=self.learn_variance,
        )


@dataclass(frozen=True)
class SamplingConfig:
    """The recommended way to sample; the run folder keeps it and ``unstir sample`` uses it."""

    sampler: Sampler = field(default_factory=Heun)
    """How to step."""
    grid: Grid = field(default_factory=Karras)
    """Where to stop on the way."""
    steps: int = 18
    """How many steps."""
    guidance_scale: float = 1.0
    """Classifier-free guidance: 1 is off; more gives clearer, less varied samples of what was asked for."""
    guidance_from: float = 0.0
    """Lowest noise level (sigma / alpha) at which to guide."""
    guidance_to: float = math.inf
    """Highest noise level at which to guide."""
    clip: bool = True
    """Keep the believed data in the range of pictures (data without a range are never clipped)."""
    labels: Literal["cycle", "uniform", "none"] = "cycle"
    """Labels of samples that were asked for without one: each class in turn, at random, or no label."""

    def guide(self, denoiser: Denoiser, spec: DataSpec) -> Denoiser:
        """The denoiser with this guidance and clipping around it."""
        if self.guidance_scale != 1:
            interval = (self.guidance_from, self.guidance_to)
            denoiser = ClassifierFreeGuidance(denoiser, self.guidance_scale, interval)
        if self.clip and spec.bounds:
            denoiser = ClipX0(denoiser, *spec.bounds)
        return denoiser

    def times(self, process: Process) -> torch.Tensor:
        """The grid's times: ``steps`` + 1 of them, fewer where the process has fewer steps."""
        return self.grid.times(process, self.steps)


@dataclass(frozen=True)
class Recipe:
    """An experiment: everything needed to train a model and to sample from it.

    Args:
        about: one line for the list of recipes.
        kinds: of data it is for.
    """

    about: str = ""
    """What it is for."""
    kinds: tuple[str, ...] = ("image",)
    """Kinds of data it can train on: image, signal, volume, points."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where the data is and how to read it."""
    process: Process = field(default_factory=EDM)
    """How data turn into noise."""
    network: NetworkConfig = field(default_factory=UNetConfig)
    """The network."""
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    """What the network's output means."""
    objective: Objective = field(default_factory=DenoisingObjective)
    """What training minimises."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How long, how fast and with what it is trained."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """The recommended way to sample."""
