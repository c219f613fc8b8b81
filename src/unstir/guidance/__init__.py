"""Guidance: Denoisers around Denoisers, which stack in any order."""

from unstir.guidance.autoguidance import AutoGuidance
from unstir.guidance.cfg import ClassifierFreeGuidance
from unstir.guidance.conditions import OnlyKnown
from unstir.guidance.control import ControlStrength
from unstir.guidance.function import ClassifierGuidance, FunctionGuidance, LogProb, LossFunction
from unstir.guidance.interval import EVERYWHERE, Interval
from unstir.guidance.rescale import restore_std
from unstir.guidance.scale import ScaleInput
from unstir.guidance.similarity import SimilarityGuidance
from unstir.guidance.threshold import ClipX0, DynamicThreshold

__all__ = [
    "EVERYWHERE",
    "AutoGuidance",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "ClipX0",
    "ControlStrength",
    "DynamicThreshold",
    "FunctionGuidance",
    "Interval",
    "LogProb",
    "LossFunction",
    "OnlyKnown",
    "ScaleInput",
    "SimilarityGuidance",
    "restore_std",
]
