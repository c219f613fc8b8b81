"""The autoencoder of Stable Diffusion and its successors, as diffusers' folders of class AutoencoderKL hold it. Names are the files'."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unstir.autoencoders.published import PublishedCoder, Weights, fill, read_weights
from unstir.errors import UserError
from unstir.networks.layers import attend

EPSILON = 1e-6  # of its normalisations
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Of the attention's layers in folders written before 2023."""


class Residual(nn.Module):
    """Norm, SiLU, conv, twice, plus the input."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, EPSILON)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, EPSILON)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (B, outputs, H, W)
        h = self.conv2(F.silu(self.norm2(h)))  # (B, outputs, H, W)
        skip = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x  # (B, outputs, H, W)
        y: Tensor = skip + h  # (B, outputs, H, W)
        return y


class SelfAttention(nn.Module):
    """One head over all positions, plus the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPSILON)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x).flatten(2).mT.unsqueeze(1)  # (B, 1, H W, C)
        h = attend(self.to_q(h), self.to_k(h), self.to_v(h)).squeeze(1)  # (B, H W, C)
        y: Tensor = x + self.to_out[0](h).mT.reshape(x.shape)  # (B, C, H, W)
        return y


class Halving(nn.Module):
    """A strided convolution whose padding is to the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # (B, C, H/2, W/2)
        return y


class Doubling(nn.Module):
    """Nearest neighbours and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # (B, C, 2 H, 2 W)
        return y


class Level(nn.Module):
    """Residual blocks at one resolution, and a change of it after them."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, change: str, by: nn.Module | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(inputs if i == 0 else outputs, outputs, groups) for i in range(layers))
        self.change = change
        if by is not None:
            self.add_module(change, nn.ModuleList([by]))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)  # (B, outputs, H, W)
        for change in getattr(self, self.change, ()):
            x = change(x)  # (B, outputs, H/2 or 2 H, ...)
        return x


class Middle(nn.Module):
    """A residual block, attention, a residual block."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([SelfAttention(channels, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)  # (B, C, H, W)
        for attention in self.attentions:
            x = attention(x)  # (B, C, H, W)
        x = self.resnets[1](x)  # (B, C, H, W)
        return x


class Ends(nn.Module):
    """What both halves begin and end with."""

    def __init__(self, inputs: int, first: int, last: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, first, 3, padding=1)
        self.conv_norm_out = nn.GroupNorm(groups, last, EPSILON)
        self.conv_out = nn.Conv2d(last, outputs, 3, padding=1)

    def out(self, h: Tensor) -> Tensor:
        """The last features -> what the half gives."""
        y: Tensor = self.conv_out(F.silu(self.conv_norm_out(h)))  # (B, outputs, H, W)
        return y


class Encoder(Ends):
    """Way down."""

    def __init__(
        self, channels: int, widths: Sequence[int], layers: int, outputs: int, groups: int, attention: bool
    ) -> None:
        super().__init__(channels, widths[0], widths[-1], outputs, groups)
        self.down_blocks = nn.ModuleList(
            Level(a, b, layers, groups, "downsamplers", Halving(b) if i < len(widths) - 1 else None)
            for i, (a, b) in enumerate(pairwise([widths[0], *widths]))
        )
        self.mid_block = Middle(widths[-1], groups, attention)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)  # (B, widths[0], H, W)
        for block in self.down_blocks:
            h = block(h)  # (B, widths[i], H / 2^i, ...)
        return self.out(self.mid_block(h))  # (B, outputs, H / factor, ...)


class Decoder(Ends):
    """Way up."""

    def __init__(
        self, channels: int, widths: Sequence[int], layers: int, inputs: int, groups: int, attention: bool
    ) -> None:
        super().__init__(inputs, widths[-1], widths[0], channels, groups)
        self.mid_block = Middle(widths[-1], groups, attention)
        down = [*widths[::-1]]
        self.up_blocks = nn.ModuleList(
            Level(a, b, layers + 1, groups, "upsamplers", Doubling(b) if i < len(widths) - 1 else None)
            for i, (a, b) in enumerate(pairwise([down[0], *down]))
        )

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid_block(self.conv_in(z))  # (B, widths[-1], H, W)
        for block in self.up_blocks:
            h = block(h)  # (B, widths[-1 - i], 2^i H, ...)
        return self.out(h)  # (B, C, factor · H, ...)


class AutoencoderKL(PublishedCoder):
    """Pictures in [-1, 1] to the mean of their latents' posterior, and back.

    Source:
        Rombach et al. 2022, section 3.1, https://arxiv.org/abs/2112.10752; the layers are those of the published weights, as diffusers' AutoencoderKL reads them

    Args:
        config: of the folder; absent entries are diffusers' defaults.

    Raises:
        UserError: a configuration that this module does not know.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        mean, std = config.get("latents_mean"), config.get("latents_std")
        scaling = config.get("scaling_factor", 0.18215)
        scale = scaling if std is None else [scaling / s for s in std]
        super().__init__(mean if mean is not None else config.get("shift_factor") or 0.0, scale)
        widths = [int(width) for width in config.get("block_out_channels", (64,))]
        self.channels = int(config.get("in_channels", 3))
        self.latent_channels = c = int(config.get("latent_channels", 4))
        self.factor = 2 ** (len(widths) - 1)
        check_known(config, self.channels, len(widths))
        layers, groups = int(config.get("layers_per_block", 1)), int(config.get("norm_num_groups", 32))
        attention = bool(config.get("mid_block_add_attention", True))
        self.encoder = Encoder(self.channels, widths, layers, 2 * c, groups, attention)
        self.decoder = Decoder(self.channels, widths, layers, c, groups, attention)
        if config.get("use_quant_conv", True):
            self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1)
        if config.get("use_post_quant_conv", True):
            self.post_quant_conv = nn.Conv2d(c, c, 1)

    def raw_encode(self, x: Tensor) -> Tensor:
        h = self.encoder(x)  # (B, 2 c, H / factor, W / factor)
        h = self.quant_conv(h) if hasattr(self, "quant_conv") else h  # (B, 2 c, H / factor, W / factor)
        mean: Tensor = h.chunk(2, 1)[0]  # (B, c, H / factor, W / factor)
        return mean

    def raw_decode(self, z: Tensor) -> Tensor:
        z = self.post_quant_conv(z) if hasattr(self, "post_quant_conv") else z  # (B, c, h, w)
        x: Tensor = self.decoder(z)  # (B, C, factor · h, factor · w)
        return x


def check_known(config: Mapping[str, Any], channels: int, levels: int) -> None:
    """Refuses what this module would compute wrongly.

    Raises:
        UserError: with the entry.
    """
    expected = {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "act_fn": "silu",
        "out_channels": channels,
    }
    for name, value in expected.items():
        found = config.get(name, value)
        if (list(found) if isinstance(found, (list, tuple)) else found) != value:
            raise UserError(f"an AutoencoderKL with {name} = {found} is not known here; {name} = {value} is")


def with_new_names(weights: Weights) -> Weights:
    """Old names of the attention's layers, which were also written as convolutions, as the new ones."""

    def renamed(name: str) -> str:
        return re.sub(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda m: f"{m[1]}.{OLD_NAMES[m[2]]}.", name)

    new = {renamed(name): value for name, value in weights.items()}
    linear = re.compile(r"attentions\.\d+\.to_.*weight")
    return {name: v.flatten(1) if linear.search(name) else v for name, v in new.items()}


def read_kl(folder: Path, config: Mapping[str, Any]) -> AutoencoderKL:
    """The autoencoder in a folder.

    Raises:
        UserError: a configuration that is not known, or weights that do not fit it.
    """
    coder = AutoencoderKL(config)
    fill(coder, with_new_names(read_weights(folder)), folder)
    return coder
