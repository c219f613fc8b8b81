"""Objectives, and the tables of their parts."""

from unstir.objectives.denoising import DenoisingObjective
from unstir.objectives.objective import Batch, Loss, Objective
from unstir.objectives.times import TIMES, LogitNormal, LogNormal, Times, UniformTimes
from unstir.objectives.weighting import P2, WEIGHTS, Constant, MinSNR, Weight

OBJECTIVES: dict[str, type[Objective]] = {"denoising": DenoisingObjective}

__all__ = [
    "OBJECTIVES",
    "P2",
    "TIMES",
    "WEIGHTS",
    "Batch",
    "Constant",
    "DenoisingObjective",
    "LogNormal",
    "LogitNormal",
    "Loss",
    "MinSNR",
    "Objective",
    "Times",
    "UniformTimes",
    "Weight",
]
