"""Conditions: what a sample can be asked for, embedded for networks; and their null."""

from unstir.conditioning.embed import (
    CONDITION_EMBEDDINGS,
    ClassEmbedding,
    ConditionEmbedding,
    GridChannels,
    VectorEmbedding,
)
from unstir.conditioning.null import drop, is_null, null_like

__all__ = [
    "CONDITION_EMBEDDINGS",
    "ClassEmbedding",
    "ConditionEmbedding",
    "GridChannels",
    "VectorEmbedding",
    "drop",
    "is_null",
    "null_like",
]
