"""Feature spaces by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from unstir.data import Dataset
from unstir.errors import UserError, did_you_mean
from unstir.evaluation.features.space import Features, FeatureSpace

__all__ = ["DEFAULTS", "FEATURES", "FeatureSpace", "Features", "feature_space"]

Build = Callable[[Dataset, torch.device, Path], FeatureSpace]

FEATURES: dict[str, Build] = {}
"""(the reference data, device, cache folder) -> the space, by name."""

DEFAULTS: dict[str, str] = {"image": "efficientnet-lite0", "signal": "spectrum", "points": "coordinates", "volume": "pixels"}
"""The space of each kind of data."""


def feature_space(name: str | None, dataset: Dataset, device: torch.device, cache: Path) -> FeatureSpace:
    """The feature space of that name, or the default for this kind of data.

    Raises:
        UserError: an unknown name, or a space that this data or this installation cannot have.
    """
    name = name or DEFAULTS[dataset.spec.kind]
    if name not in FEATURES:
        raise UserError(f"unknown feature space '{name}'; {did_you_mean(name, FEATURES)}")
    return FEATURES[name](dataset, device, cache)
