"""The teaching network of the course "How Diffusion Models Work": pixel-art sprites with a context vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.conditioning.null import null_like
from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.networks.config import NetworkConfig
from unstir.networks.layers import crop, pad_to_multiple


@dataclass(frozen=True)
class ContextUNetConfig(NetworkConfig):
    """The course's small U-Net, for pictures of any height and width."""

    n_feat: int = 64
    """Features of the finest level; twice as many in the middle."""

    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        if spec.kind != "image":
            raise UserError(f"context_unet works on pictures, not on data of kind {spec.kind}; use --network unet")
        if self.n_feat < 8 or self.n_feat % 8:
            raise UserError(f"network.n_feat {self.n_feat} must be a multiple of 8, its norm's number of groups")
        return ContextUNet(self.n_feat, spec, in_channels or spec.shape[0], out_channels)


class ResidualConvBlock(nn.Module):
    """Twice conv, BatchNorm, GELU; as a residual block their sum with the input, over sqrt(2)."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.conv_1 = nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.GELU())
        self.conv_2 = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.GELU())
        # Only where it is used: a parameter without a gradient stops training on several devices.
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if residual and inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv_2(self.conv_1(x))  # (B, outputs, H, W)
        return (self.shortcut(x) + h) / math.sqrt(2) if self.residual else h  # (B, outputs, H, W)


class Down(nn.Module):
    """Two blocks and a max-pool."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ResidualConvBlock(inputs, outputs), ResidualConvBlock(outputs, outputs), nn.MaxPool2d(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)  # (B, outputs, H/2, W/2)
        return result


class Up(nn.Module):
    """The way down's features beside, a transposed convolution, two blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 2, 2),
            ResidualConvBlock(outputs, outputs),
            ResidualConvBlock(outputs, outputs),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        result: Tensor = self.layers(torch.cat([x, skip], 1))  # (B, outputs, 2H, 2W)
        return result


class EmbedFC(nn.Sequential):
    """Two layers with a GELU between, as a map of one pixel."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.Unflatten(1, (width, 1, 1)))


class Context(nn.Module):
    """All conditions as one vector: classes one-hot, vectors as they are, nulls as zeros."""

    def __init__(self, conditions: Mapping[str, Condition]) -> None:
        super().__init__()
        self.declared = set(conditions)
        self.conditions = {name: c for name, c in conditions.items() if c.kind in ("class", "vector")}
        self.size = max(sum(c.size for c in self.conditions.values()), 1)

    def forward(self, c_noise: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        if unknown := set(cond) - self.declared:
            raise ValueError(f"this network knows no condition {sorted(unknown)}; it knows {sorted(self.conditions)}")
        parts = []
        for name, condition in self.conditions.items():
            template = c_noise.new_zeros(len(c_noise), condition.size)  # (B, size)
            if condition.kind == "class":
                label = cond.get(name, null_like(c_noise.long()))  # (B,)
                parts.append(F.one_hot(label + 1, condition.size + 1)[:, 1:].to(c_noise.dtype))  # (B, size)
            else:
                parts.append(cond.get(name, template).nan_to_num(0.0))  # (B, size)
        return torch.cat(parts, 1) if parts else c_noise.new_zeros(len(c_noise), 1)  # (B, sum of sizes)


class ContextUNet(nn.Module):
    """Down by max-pooling to a vector, and up again, multiplied by the context and shifted by the time at both levels.

        up_1 = up(context_1 · up_0 + time_1, down_2),   up_2 = up(context_2 · up_1 + time_2, down_1)

    Two well-known mistakes of the course's notebook are not repeated. There the noise was scaled by (1 - alpha_bar) where the
    process says sqrt(1 - alpha_bar); here the Process does it. And there the 1x1 shortcut of a residual block that changes the
    number of channels was made anew, with random weights, at every call; here it is a layer, and trained.

    BatchNorm's running statistics are buffers: the averaged model copies them, and only averages parameters.

    Source:
        Sharon Zhou et al. 2023, "How Diffusion Models Work", DeepLearning.AI; after T. Pearce, https://github.com/TeaPearce/Conditional_Diffusion_MNIST
    """

    def __init__(self, n_feat: int, spec: DataSpec, in_channels: int, out_channels: int) -> None:
        super().__init__()
        height, width = (-(-size // 4) for size in spec.shape[1:])  # of the coarsest grid
        self.initial = ResidualConvBlock(in_channels, n_feat, residual=True)
        self.down_1, self.down_2 = Down(n_feat, n_feat), Down(n_feat, 2 * n_feat)
        self.to_vector = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.GELU())
        self.context = Context(spec.conditions)
        self.time_1, self.time_2 = EmbedFC(1, 2 * n_feat), EmbedFC(1, n_feat)
        self.context_1, self.context_2 = EmbedFC(self.context.size, 2 * n_feat), EmbedFC(self.context.size, n_feat)
        self.up_0 = nn.Sequential(
            nn.ConvTranspose2d(2 * n_feat, 2 * n_feat, (height, width)), nn.GroupNorm(8, 2 * n_feat), nn.ReLU()
        )
        self.up_1, self.up_2 = Up(4 * n_feat, n_feat), Up(2 * n_feat, n_feat)
        self.out = nn.Sequential(
            nn.Conv2d(2 * n_feat, n_feat, 3, 1, 1),
            nn.GroupNorm(8, n_feat),
            nn.ReLU(),
            nn.Conv2d(n_feat, out_channels, 3, 1, 1),
        )

    def forward(self, x: Tensor, c_noise: Tensor, /, **cond: Tensor) -> Tensor:
        grid = x.shape[2:]
        x = self.initial(pad_to_multiple(x, 4))  # (B, n, H, W)
        down_1 = self.down_1(x)  # (B, n, H/2, W/2)
        down_2 = self.down_2(down_1)  # (B, 2n, H/4, W/4)
        up = self.up_0(self.to_vector(down_2))  # (B, 2n, H/4, W/4)
        context, time = self.context(c_noise, cond), c_noise[:, None]  # (B, K), (B, 1)
        up = self.up_1(self.context_1(context) * up + self.time_1(time), down_2)  # (B, n, H/2, W/2)
        up = self.up_2(self.context_2(context) * up + self.time_2(time), down_1)  # (B, n, H, W)
        return crop(self.out(torch.cat([up, x], 1)), grid)  # (B, out_channels, *grid)
