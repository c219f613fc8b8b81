"""unstir: train, sample, evaluate, edit and distil diffusion models on your own data.

    import unstir
    model = unstir.load("runs/demo")
    pictures = model.sample(16, label="flags")      # (16, 3, 32, 32) in [-1, 1]

The public names are imported when they are first used, so that ``import unstir`` costs nothing (PyTorch alone takes a second).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    # the five words
    "Process": "unstir.process",
    "PROCESSES": "unstir.processes",
    "Prediction": "unstir.prediction",
    "PARAMETERIZATIONS": "unstir.parameterization",
    "Denoiser": "unstir.denoiser",
    "NetDenoiser": "unstir.denoiser",
    "ChangeProcess": "unstir.denoiser",
    "GaussianDenoiser": "unstir.denoiser",
    "MixtureDenoiser": "unstir.denoiser",
    "Sampler": "unstir.sampling",
    "SAMPLERS": "unstir.samplers",
    "GRIDS": "unstir.samplers",
    "Grid": "unstir.sampling",
    "SampleNoise": "unstir.sampling",
    "sample": "unstir.sampling",
    "encode": "unstir.sampling",
    "trajectory": "unstir.sampling",
    "AutoGuidance": "unstir.guidance",
    "ClassifierFreeGuidance": "unstir.guidance",
    "ClassifierGuidance": "unstir.guidance",
    "ClipX0": "unstir.guidance",
    "DynamicThreshold": "unstir.guidance",
    "FunctionGuidance": "unstir.guidance",
    "SimilarityGuidance": "unstir.guidance",
    "NoisyClassifier": "unstir.noisy_classifier",
    "Clip": "unstir.clip",
    "Objective": "unstir.objectives",
    "OBJECTIVES": "unstir.objectives",
    "DenoisingObjective": "unstir.objectives",
    "Recipe": "unstir.recipes",
    "RECIPES": "unstir.recipes",
    # data and models
    "DataSpec": "unstir.data",
    "Model": "unstir.model",
    "load": "unstir.run",
    "UserError": "unstir.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from unstir.clip import Clip as Clip
    from unstir.data import DataSpec as DataSpec
    from unstir.denoiser import ChangeProcess as ChangeProcess
    from unstir.denoiser import Denoiser as Denoiser
    from unstir.denoiser import GaussianDenoiser as GaussianDenoiser
    from unstir.denoiser import MixtureDenoiser as MixtureDenoiser
    from unstir.denoiser import NetDenoiser as NetDenoiser
    from unstir.errors import UserError as UserError
    from unstir.guidance import AutoGuidance as AutoGuidance
    from unstir.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
    from unstir.guidance import ClassifierGuidance as ClassifierGuidance
    from unstir.guidance import ClipX0 as ClipX0
    from unstir.guidance import DynamicThreshold as DynamicThreshold
    from unstir.guidance import FunctionGuidance as FunctionGuidance
    from unstir.guidance import SimilarityGuidance as SimilarityGuidance
    from unstir.model import Model as Model
    from unstir.noisy_classifier import NoisyClassifier as NoisyClassifier
    from unstir.objectives import OBJECTIVES as OBJECTIVES
    from unstir.objectives import DenoisingObjective as DenoisingObjective
    from unstir.objectives import Objective as Objective
    from unstir.parameterization import PARAMETERIZATIONS as PARAMETERIZATIONS
    from unstir.prediction import Prediction as Prediction
    from unstir.process import Process as Process
    from unstir.processes import PROCESSES as PROCESSES
    from unstir.recipes import RECIPES as RECIPES
    from unstir.recipes import Recipe as Recipe
    from unstir.run import load as load
    from unstir.samplers import GRIDS as GRIDS
    from unstir.samplers import SAMPLERS as SAMPLERS
    from unstir.sampling import Grid as Grid
    from unstir.sampling import SampleNoise as SampleNoise
    from unstir.sampling import Sampler as Sampler
    from unstir.sampling import encode as encode
    from unstir.sampling import sample as sample
    from unstir.sampling import trajectory as trajectory


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unstir' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
