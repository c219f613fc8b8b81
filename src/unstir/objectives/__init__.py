"""Objectives, and the tables of their parts."""

from unstir.objectives.classification import NoisyClassificationObjective
from unstir.objectives.contrastive import ContrastiveObjective
from unstir.objectives.denoising import DenoisingObjective
from unstir.objectives.objective import Batch, Companion, Loss, Objective
from unstir.objectives.reconstruction import ReconstructionObjective
from unstir.objectives.times import TIMES, LogitNormal, LogNormal, Times, UniformTimes
from unstir.objectives.variational import HybridObjective, VariationalObjective
from unstir.objectives.weighting import (
    P2,
    WEIGHTS,
    Constant,
    EDMWeight,
    LearnedUncertainty,
    MinSNR,
    SigmoidWeight,
    Weight,
)

OBJECTIVES: dict[str, type[Objective]] = {
    "denoising": DenoisingObjective,
    "hybrid": HybridObjective,
    "variational": VariationalObjective,
    "noisy-classification": NoisyClassificationObjective,
    "contrastive": ContrastiveObjective,
    "reconstruction": ReconstructionObjective,
}

__all__ = [
    "OBJECTIVES",
    "P2",
    "TIMES",
    "WEIGHTS",
    "Batch",
    "Companion",
    "Constant",
    "ContrastiveObjective",
    "DenoisingObjective",
    "EDMWeight",
    "HybridObjective",
    "LearnedUncertainty",
    "LogNormal",
    "LogitNormal",
    "Loss",
    "MinSNR",
    "NoisyClassificationObjective",
    "Objective",
    "ReconstructionObjective",
    "SigmoidWeight",
    "Times",
    "UniformTimes",
    "VariationalObjective",
    "Weight",
]
