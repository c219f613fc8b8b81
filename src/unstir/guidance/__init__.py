"""Guidance: Denoisers around Denoisers, which stack in any order."""

from unstir.guidance.autoguidance import AutoGuidance
from unstir.guidance.cfg import ClassifierFreeGuidance
from unstir.guidance.conditions import OnlyKnown
from unstir.guidance.function import ClassifierGuidance, FunctionGuidance, LogProb, LossFunction
from unstir.guidance.interval import EVERYWHERE, Interval
from unstir.guidance.rescale import restore_std
from unstir.guidance.threshold import ClipX0, DynamicThreshold

__all__ = [
    "EVERYWHERE",
    "AutoGuidance",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "ClipX0",
    "DynamicThreshold",
    "FunctionGuidance",
    "Interval",
    "LogProb",
    "LossFunction",
    "OnlyKnown",
    "restore_std",
]
