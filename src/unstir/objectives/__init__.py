"""Objectives, and the tables of their parts."""

from unstir.objectives.classification import NoisyClassificationObjective
from unstir.objectives.consistency import ConsistencyObjective
from unstir.objectives.continuous import ContinuousConsistencyObjective
from unstir.objectives.contrastive import ContrastiveObjective
from unstir.objectives.denoising import DenoisingObjective
from unstir.objectives.discretization import PAIRS, KarrasPairs, LogNormalPairs, Pairs, ShrinkingPairs
from unstir.objectives.distillation import DistillationObjective, Teacher
from unstir.objectives.matching import MatchingObjective
from unstir.objectives.objective import Batch, Companion, Loss, Objective
from unstir.objectives.progressive import ProgressiveObjective
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
    SNRPlusOne,
    TruncatedSNR,
    Weight,
)

OBJECTIVES: dict[str, type[Objective]] = {
    "denoising": DenoisingObjective,
    "hybrid": HybridObjective,
    "variational": VariationalObjective,
    "noisy-classification": NoisyClassificationObjective,
    "contrastive": ContrastiveObjective,
    "progressive": ProgressiveObjective,
    "consistency": ConsistencyObjective,
    "matching": MatchingObjective,
    "continuous-consistency": ContinuousConsistencyObjective,
    "reconstruction": ReconstructionObjective,
}

__all__ = [
    "OBJECTIVES",
    "P2",
    "PAIRS",
    "TIMES",
    "WEIGHTS",
    "Batch",
    "Companion",
    "ConsistencyObjective",
    "Constant",
    "ContinuousConsistencyObjective",
    "ContrastiveObjective",
    "DenoisingObjective",
    "DistillationObjective",
    "EDMWeight",
    "HybridObjective",
    "KarrasPairs",
    "LearnedUncertainty",
    "LogNormal",
    "LogNormalPairs",
    "LogitNormal",
    "Loss",
    "MatchingObjective",
    "MinSNR",
    "NoisyClassificationObjective",
    "Objective",
    "Pairs",
    "ProgressiveObjective",
    "ReconstructionObjective",
    "SNRPlusOne",
    "ShrinkingPairs",
    "SigmoidWeight",
    "Teacher",
    "Times",
    "TruncatedSNR",
    "UniformTimes",
    "VariationalObjective",
    "Weight",
]
