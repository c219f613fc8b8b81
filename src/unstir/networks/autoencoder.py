"""The network of an autoencoder: residual blocks at falling resolutions, a bottleneck, and back up without a look at the finer levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.networks.bottleneck import Bottleneck, BottleneckConfig
from unstir.networks.coder import Coder, Passed
from unstir.networks.config import NetworkConfig
from unstir.networks.layers import NORMS, Attention, conv, depth_to_space, pad_to_multiple, space_to_depth, zero

AT_ONCE = 2**16  # blocks whose products are summed together
FLATTEST = 1e-4
"""Least scale of a latent of the linear path, as a fraction of the largest: directions in which the data hardly vary are not blown up."""
CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class AutoencoderNetworkConfig(NetworkConfig):
    """An encoder and a decoder, for recipes that train an autoencoder."""

    channels: int = 32
    """Channels of the finest level."""
    multipliers: tuple[int, ...] = (1, 2)
    """Channels of each level, as multiples; each level but the first halves the resolution."""
    blocks: int = 1
    """Residual blocks of a level on the way down; one more on the way up."""
    patch: int = 2
    """Both halves work on patches of this side (1: on single pixels): the latents' grid is coarser by patch · 2^(levels - 1)."""
    latent_channels: int = 4
    """Channels of the latents."""
    attention: bool = True
    """Self-attention at the coarsest level."""
    head_channels: int = 64
    """Channels of an attention head."""
    norm: Literal["layer", "group"] = "layer"
    """Normalisation: over the channels of each position (faster on CPUs, and the same whatever is elsewhere), or over groups of channels."""
    linear: bool = True
    """Begin as the best linear autoencoder of blocks of the data, and learn what is to be done better."""
    channels_last: bool = True
    """Keep channels innermost in memory (pictures and volumes): faster convolutions in bf16."""

    @property
    def factor(self) -> int:
        """How many entries of the data's grid one of the latents' stands for, along each axis."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))

    def build(self, spec: DataSpec, out_channels: int, in_channels: int | None = None) -> nn.Module:
        """Refuses: it is told no noise level, and gives no F.

        Raises:
            UserError: always.
        """
        raise UserError(
            "the network autoencoder is for the recipe autoencoder; a model that draws samples takes --network unet"
        )

    def coder(self, spec: DataSpec, bottleneck: BottleneckConfig) -> GridCoder:
        """A freshly initialised network for such data.

        Raises:
            UserError: points, or sizes of which no network can be made.
        """
        if spec.rank == 0:
            raise UserError(
                "an autoencoder makes signals, pictures and volumes smaller; points have no grid to be smaller on"
            )
        sizes = (self.channels, self.blocks, self.patch, self.latent_channels, self.head_channels)
        if not self.multipliers or min(*sizes, *self.multipliers) < 1:
            raise UserError(
                "network: multipliers, channels, blocks, patch, latent_channels and head_channels must be at least 1"
            )
        coder = GridCoder(self, spec.rank, spec.shape[0], bottleneck.build(self.latent_channels))
        if self.channels_last and spec.rank > 1:
            coder.to(memory_format=torch.channels_last if spec.rank == 2 else torch.channels_last_3d)  # type: ignore[call-overload]
        return coder


def blocks_of(x: Tensor, factor: int) -> Tensor:
    """(N, C, ...) -> (N blocks, C factor^rank), padded at the edges."""
    return space_to_depth(pad_to_multiple(x, factor), factor).movedim(1, -1).flatten(0, -2)


def principal_components(rows: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of (N, D): mean (D,), the ``most`` first components (most, D) of unit length, and the standard deviations (most,) along them; zeros
    where there are fewer. Computed in double precision, in pieces; the largest entry of each component is positive."""
    n, size = rows.shape
    mean = (
        sum((part.double().sum(0) for part in torch.split(rows, AT_ONCE)), torch.zeros(size, dtype=torch.float64)) / n
    )
    covariance = torch.zeros(size, size, dtype=torch.float64)
    for part in torch.split(rows, AT_ONCE):
        centred = part.double() - mean
        covariance += centred.mT @ centred / n
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:most], vectors.flip(1)[:, :most].mT
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    missing = most - len(values)
    components = F.pad(vectors * largest.sign(), (0, 0, 0, missing))
    return mean.float(), components.float(), F.pad(values.clamp(min=0).sqrt(), (0, missing)).float()


class PlainBlock(nn.Module):
    """Norm, SiLU, conv, twice, plus the input; the last convolution starts at 0.

    Equation:
        y = skip(x) + conv(silu(norm(conv(silu(norm(x))))))
    Source:
        He et al. 2016, https://arxiv.org/abs/1603.05027; in autoencoders: Esser, Rombach & Ommer 2021, appendix, https://arxiv.org/abs/2012.09841
    """

    def __init__(self, rank: int, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.norm_1 = NORMS[norm](inputs)
        self.conv_1 = conv(rank, inputs, outputs)
        self.norm_2 = NORMS[norm](outputs)
        self.conv_2 = zero(conv(rank, outputs, outputs))
        self.skip = conv(rank, inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def inner_weights(self) -> list[Tensor]:
        """The matrices that an optimiser for hidden layers may step."""
        return [self.conv_1.get_parameter("weight"), self.conv_2.get_parameter("weight")]

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x)))  # (B, outputs, ...)
        result: Tensor = self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))  # (B, outputs, ...)
        return result


class Grow(nn.Module):
    """Twice the resolution: nearest neighbours and a convolution."""

    def __init__(self, rank: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(rank, inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # (B, outputs, 2 ...)
        return y


class GridCoder(Coder):
    """The module of ``AutoencoderNetworkConfig``.

    Beside the deep path there is a linear one, from a block of the data to its latents and back: at first the block's principal components,
    with the deep path at 0, so that nobody has to learn what linear algebra knows.

    Equation:
        E(x) = deep(x) + W (p - mean),   D(z) = deep(z) + V z + mean,   at first deep = 0, W = S^(-1/2) U^T, V = U S^(1/2), for blocks p with the covariance U S U^T (the c largest)
    Source:
        Esser, Rombach & Ommer 2021, section 3.1 and appendix, https://arxiv.org/abs/2012.09841; Rombach et al. 2022, section 3.1, https://arxiv.org/abs/2112.10752; principal components as the best linear autoencoder: Baldi & Hornik 1989, https://doi.org/10.1016/0893-6080(89)90014-2

    Args:
        rank: of the grid. channels: of the data.
    """

    def __init__(self, config: AutoencoderNetworkConfig, rank: int, channels: int, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.rank, self.channels = rank, channels
        self.factor, self.latent_channels, self.patch = config.factor, config.latent_channels, config.patch
        widths = [config.channels * m for m in config.multipliers]
        norm, deepest = config.norm, widths[-1]

        def middle() -> list[nn.Module]:
            attention = [Attention(rank, deepest, config.head_channels, norm)] if config.attention else []
            return [PlainBlock(rank, deepest, deepest, norm), *attention, PlainBlock(rank, deepest, deepest, norm)]

        down: list[nn.Module] = [conv(rank, channels * self.patch**rank, widths[0])]
        for width, next_width in zip(widths, [*widths[1:], 0], strict=True):
            down += [PlainBlock(rank, width, width, norm) for _ in range(config.blocks)]
            down += [conv(rank, width, next_width, stride=2)] if next_width else []
        self.encoder = nn.Sequential(
            *down, *middle(), NORMS[norm](deepest), nn.SiLU(), conv(rank, deepest, bottleneck.inputs)
        )
        self.bottleneck = bottleneck
        up: list[nn.Module] = [conv(rank, self.latent_channels, deepest), *middle()]
        for width, next_width in zip(widths[::-1], [*widths[-2::-1], 0], strict=True):
            up += [PlainBlock(rank, width, width, norm) for _ in range(config.blocks + 1)]
            up += [Grow(rank, width, next_width)] if next_width else []
        self.decoder = nn.Sequential(*up, NORMS[norm](widths[0]), nn.SiLU())
        self.last = conv(rank, widths[0], channels * self.patch**rank)
        self.linear = config.linear
        if self.linear:
            zero(self.encoder[-1])
            zero(self.last)
            block = channels * self.factor**rank
            self.straight_in = conv(rank, block, self.latent_channels, 1)
            self.straight_out = conv(rank, self.latent_channels, block, 1)

    @torch.no_grad()
    def fit(self, x_0: Tensor) -> None:
        """Takes the linear path from the principal components of the blocks of samples (N, C, ...)."""
        if not self.linear:
            return
        mean, components, scales = principal_components(blocks_of(x_0, self.factor), self.latent_channels)
        ones = [1] * self.rank
        inward = components / scales.clamp(min=scales[0] * FLATTEST)[:, None]  # (c, D)
        outward = (components * scales[:, None]).mT  # (D, c)
        for layer, weight, bias in (
            (self.straight_in, inward, -inward @ mean),
            (self.straight_out, outward, mean),
        ):
            layer.get_parameter("weight").copy_(weight.reshape(*weight.shape, *ones))
            layer.get_parameter("bias").copy_(bias)

    def _in_memory_order(self, x: Tensor) -> Tensor:
        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
        return x if last is None else x.contiguous(memory_format=last)

    def _encode(self, x: Tensor) -> Tensor:
        h: Tensor = self.encoder(self._in_memory_order(space_to_depth(x, self.patch)))  # (B, inputs, .../factor)
        if not self.linear:
            return h
        straight = self.straight_in(space_to_depth(x, self.factor))  # (B, c, .../factor)
        c = self.latent_channels
        return torch.cat([h[:, :c] + straight, h[:, c:]], 1)  # (B, inputs, .../factor)

    def _features(self, z: Tensor) -> Tensor:
        features: Tensor = self.decoder(self._in_memory_order(z))  # (B, widths[0], .../patch)
        return features

    def _out(self, z: Tensor, features: Tensor) -> Tensor:
        y = depth_to_space(self.last(features), self.patch)  # (B, C, ...)
        return y + depth_to_space(self.straight_out(z), self.factor) if self.linear else y  # (B, C, ...)

    def encode(self, x: Tensor) -> Tensor:
        return self.bottleneck.encode(self._encode(x))  # (B, c, .../factor)

    def decode(self, z: Tensor) -> Tensor:
        z = self.bottleneck.decode(z)  # (B, c, .../factor)
        return self._out(z, self._features(z))  # (B, C, ...)

    def forward(self, x: Tensor, noise: Tensor) -> Passed:
        """x (B, C, ...), noise (B, c, .../factor) -> what training is told."""
        squeezed = self.bottleneck(self._encode(x), noise, x[0].numel())
        features = self._features(squeezed.z)  # (B, widths[0], .../patch)
        y = self._out(squeezed.z, features)  # (B, C, ...)
        return Passed(y, features, squeezed.penalty, squeezed.perplexity)

    def last_gradients(self, features: Tensor, *gradients: Tensor) -> list[Tensor]:
        """What the last convolution's weights would get, from the gradients (B, C, ...) at its output: without going back through the
        decoder, nor touching the weights, which may be spread over processes.

        Args:
            features: (B, widths[0], .../patch) its input.
        """
        shape = self.last.get_parameter("weight").shape
        with torch.enable_grad():
            weight = features.new_zeros(shape).requires_grad_()
            y = CONVOLVE[self.rank](features.detach(), weight, padding=shape[-1] // 2)  # (B, C patch^rank, .../patch)
            y = depth_to_space(y, self.patch)  # (B, C, ...)
            return [torch.autograd.grad(y, weight, g, retain_graph=True)[0] for g in gradients]
