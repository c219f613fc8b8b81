"""A small convolutional classifier: not for denoising, but for features that samples are judged in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.layers import conv, pad_to_multiple, space_to_depth

BATCH_NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
FINEST = {1: 256, 2: 32, 3: 16}  # about how many positions a side the first layer works on, by the number of grid axes


@dataclass(frozen=True)
class ClassifierConfig:
    """The size of the classifier."""

    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of each level, each at half the resolution of the one before; the last are the features."""
    deep: int = 1
    """So many of the last levels have a second, residual convolution."""

    def build(self, spec: DataSpec, classes: int) -> Classifier:
        """Freshly initialised, for such data.

        Raises:
            UserError: points, which have no grid to convolve over.
        """
        if spec.rank == 0:
            raise UserError(f"the classifier works on signals, pictures and volumes, not on {spec.kind}")
        network = Classifier(self, spec, classes)
        if spec.rank > 1:  # channels innermost in memory: faster convolutions in bf16
            network.to(memory_format=torch.channels_last if spec.rank == 2 else torch.channels_last_3d)  # type: ignore[call-overload]
        return network


class Level(nn.Module):
    """Conv, BatchNorm, ReLU; where it is deep, plus the same of that."""

    def __init__(self, rank: int, inputs: int, outputs: int, stride: int, deep: bool) -> None:
        super().__init__()
        self.conv_1, self.norm_1 = conv(rank, inputs, outputs, stride=stride), BATCH_NORM[rank](outputs)
        self.conv_2 = conv(rank, outputs, outputs) if deep else None
        self.norm_2 = BATCH_NORM[rank](outputs) if deep else None

    def inner_weights(self) -> list[Tensor]:
        """The matrices that an optimiser for hidden layers may step."""
        return [layer.get_parameter("weight") for layer in (self.conv_1, self.conv_2) if layer is not None]

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm_1(self.conv_1(x)))  # (B, outputs, ...)
        if self.conv_2 is None or self.norm_2 is None:
            return h
        return h + F.relu(self.norm_2(self.conv_2(h)))  # (B, outputs, ...)


class Stem(Level):
    """The first level, whose weights meet the data: not for an optimiser of hidden layers."""

    def inner_weights(self) -> list[Tensor]:
        return []


class Classifier(nn.Module):
    """The module of ``ClassifierConfig``: (B, C, ...) -> logits (B, classes).

    Larger data are cut into patches first, so that every size costs about the same. ``autocast`` is the arithmetic of its
    convolutions; None is that of its weights.

    Source:
        BatchNorm: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167; residual layers: He et al. 2016, https://arxiv.org/abs/1512.03385
    """

    def __init__(self, config: ClassifierConfig, spec: DataSpec, classes: int) -> None:
        super().__init__()
        self.autocast: torch.dtype | None = None
        self.patch = max(1, round(max(spec.shape[1:]) / FINEST[spec.rank]))
        first, *rest = config.channels
        plain = len(config.channels) - config.deep
        self.stem = Stem(spec.rank, spec.shape[0] * self.patch**spec.rank, first, 1, plain <= 0)
        self.levels = nn.Sequential(
            *(
                Level(spec.rank, inputs, outputs, 2, i >= plain)
                for i, (inputs, outputs) in enumerate(zip(config.channels[:-1], rest), start=1)
            )
        )
        self.head = nn.Linear(config.channels[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, channels[-1]) float32: the means over all positions of what the head sees."""
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            h = space_to_depth(pad_to_multiple(x, self.patch), self.patch)  # (B, C patch^rank, ...)
            if h.ndim == 4:
                h = h.contiguous(memory_format=torch.channels_last)  # one channel alone does not say so itself
            h = self.levels(self.stem(h))  # (B, channels[-1], ...)
        # over the positions of a channels-last view: the gradient then comes back in that layout, which ReLU's needs to be fast
        means: Tensor = h.movedim(1, -1).flatten(1, -2).float().mean(1)  # (B, channels[-1])
        return means

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))  # (B, classes)
        return logits
