"""Feature spaces by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from unstir.data import Dataset
from unstir.errors import UserError, did_you_mean
from unstir.evaluation.features import dino, efficientnet, inception, own, simple
from unstir.evaluation.features.resize import CHANNELS
from unstir.evaluation.features.space import Features, FeatureSpace
from unstir.networks import efficientnet as weights

__all__ = ["DEFAULTS", "FEATURES", "FeatureSpace", "Features", "feature_space"]

Build = Callable[[Dataset, torch.device, Path], FeatureSpace]

FEATURES: dict[str, Build] = {
    "efficientnet-lite0": efficientnet.efficientnet,
    "efficientnet-lite0-224": partial(efficientnet.efficientnet, side=efficientnet.FULL),
    "inception-v3": inception.inception,
    "inception-v3-pytorch": partial(inception.inception, resizing="pytorch"),
    "inception-v3-clean": partial(inception.inception, resizing="clean"),
    **{name: partial(dino.dino, name=name) for name in dino.MODELS},
    "own": own.own,
    "coordinates": simple.coordinates,
    "spectrum": simple.spectrum,
    "pixels": simple.pixels,
}
"""(the reference data, device, cache folder) -> the space, by name."""

DEFAULTS: dict[str, str] = {
    "image": "efficientnet-lite0",
    "signal": "spectrum",
    "points": "coordinates",
    "volume": "pixels",
}
"""The space of each kind of data."""


def feature_space(name: str | None, dataset: Dataset, device: torch.device, cache: Path) -> FeatureSpace:
    """The feature space of that name, or the default for this kind of data.

    Raises:
        UserError: an unknown name, or a space that this data or this installation cannot have.
    """
    name = name or _default(dataset)
    if name not in FEATURES:
        raise UserError(f"unknown feature space '{name}'; {did_you_mean(name, FEATURES)}")
    return FEATURES[name](dataset, device, cache)


def _default(dataset: Dataset) -> str:
    """The table's, but for pictures that are no colours, or without the network's package where there are labels to do without."""
    spec = dataset.spec
    if spec.kind != "image":
        return DEFAULTS[spec.kind]
    labelled = any(condition.named for condition in spec.conditions.values())
    if spec.shape[0] in CHANNELS and (weights.installed() or not labelled):
        return DEFAULTS["image"]  # without its package it says what to install
    return "own" if labelled else "pixels"
