"""Guidance: Denoisers around Denoisers, which stack in any order."""

from unstir.guidance.cfg import ClassifierFreeGuidance
from unstir.guidance.threshold import ClipX0

__all__ = ["ClassifierFreeGuidance", "ClipX0"]
