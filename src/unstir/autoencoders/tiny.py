"""Tiny autoencoders that decode the latents of large ones: TAESD and its kin, from diffusers' folders or from the author's pairs of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstir.autoencoders.published import PublishedCoder, Weights, fill, read_state, read_weights
from unstir.errors import UserError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
}
GROUPS = 4  # of the normalisation in blocks that have one
PAIRS = ("taesd", "taesdxl", "taesd3", "taef1", "taef2")
"""Of files, NAME_encoder.pth and NAME_decoder.pth, in this layout."""


class Block(nn.Module):
    """Three convolutions, plus the input; in some before them what a normalised layer of many channels makes of it."""

    def __init__(self, inputs: int, outputs: int, activation: Callable[[], nn.Module], pools: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            activation(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            activation(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.pools = pools
        if pools:
            wide = 4 * inputs
            self.pool = nn.Sequential(
                nn.Conv2d(inputs, wide, 1, bias=False),
                nn.GroupNorm(GROUPS, wide),
                nn.ReLU(),
                nn.Conv2d(wide, inputs, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pool(x) if self.pools else x  # (B, inputs, H, W)
        return F.relu(self.conv(x) + self.skip(x))  # (B, outputs, H, W)


class Clamp(nn.Module):
    """Softly to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3  # (B, c, H, W)


class Half(nn.Module):
    """Encoder or decoder."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)  # (B, C', H', W')
        return y


Layers = dict[int, dict[str, Tensor]]
"""The tensors of each layer of a sequence, by its place."""


def _layers(weights: Mapping[str, Tensor]) -> Layers:
    found: Layers = {}
    for name, value in weights.items():
        place, _, own = name.partition(".")
        if not place.isdecimal():
            raise ValueError(name)
        found.setdefault(int(place), {})[own] = value
    return found


def _layer(tensors: Mapping[str, Tensor], activation: Callable[[], nn.Module], stride: int) -> nn.Module:
    """The block or convolution that such tensors belong to. In this family a convolution in between has no bias."""
    if "conv.0.weight" in tensors:
        outputs, inputs = tensors["conv.0.weight"].shape[:2]
        return Block(inputs, outputs, activation, "pool.0.weight" in tensors)
    outputs, inputs = tensors["weight"].shape[:2]
    biased = "bias" in tensors
    return nn.Conv2d(inputs, outputs, 3, stride=1 if biased else stride, padding=1, bias=biased)


def encoder_like(weights: Mapping[str, Tensor], activation: Callable[[], nn.Module] = nn.ReLU) -> Half:
    """The encoder whose weights these are: convolutions without bias halve the grid.

    Raises:
        ValueError, KeyError: another layout.
    """
    layers = _layers(weights)
    if sorted(layers) != list(range(len(layers))):
        raise ValueError("there are layers without weights")
    return Half([_layer(layers[place], activation, stride=2) for place in range(len(layers))])


def decoder_like(
    weights: Mapping[str, Tensor], activation: Callable[[], nn.Module] = nn.ReLU, up: str = "nearest"
) -> Half:
    """The decoder whose weights these are: after the first convolution an activation, later layers without weights double the grid.

    Raises:
        ValueError, KeyError: another layout.
    """
    layers = _layers(weights)
    first = min(layers)
    parts: list[nn.Module] = []
    for place in range(max(layers) + 1):
        if place in layers:
            parts.append(_layer(layers[place], activation, stride=1))
        elif place < first:
            parts.append(Clamp())
        else:
            parts.append(activation() if place == first + 1 else nn.Upsample(scale_factor=2.0, mode=up))
    return Half(parts)


class TinyCoder(PublishedCoder):
    """Pictures in [-1, 1] to latents, and back; its two halves work on pictures in [0, 1].

    Source:
        Bohan 2023, "TAESD", https://github.com/madebyollin/taesd; the layers are those of the published weights

    Args:
        encoder, decoder: its halves.
        clamps: whether latents are to be clamped before the decoder, which does not do so itself.
    """

    def __init__(self, encoder: Half, decoder: Half, clamps: bool, shift: object = 0.0, scale: object = 1.0) -> None:
        super().__init__(shift, scale)
        self.encoder, self.decoder, self.clamps = encoder, decoder, clamps
        convolutions = [layer for layer in encoder.layers if isinstance(layer, nn.Conv2d)]
        self.channels, self.latent_channels = convolutions[0].in_channels, convolutions[-1].out_channels
        self.factor = 2 ** sum(layer.stride == (2, 2) for layer in convolutions)
        grown = 2 ** sum(isinstance(layer, nn.Upsample) for layer in decoder.layers)
        if grown != self.factor:
            raise ValueError(
                f"the encoder makes pictures {self.factor} times smaller, the decoder {grown} times larger"
            )

    def raw_encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder((x + 1) / 2)  # (B, c, H / factor, W / factor)
        return z

    def raw_decode(self, z: Tensor) -> Tensor:
        z = Clamp()(z) if self.clamps else z  # (B, c, h, w)
        x: Tensor = self.decoder(z) * 2 - 1  # (B, C, factor · h, factor · w)
        return x


def _inside(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def read_tiny(folder: Path, config: Mapping[str, Any]) -> TinyCoder:
    """The autoencoder in a folder of diffusers' class AutoencoderTiny.

    Raises:
        UserError: a configuration that is not known, or weights of another layout.
    """
    name, up = config.get("act_fn", "relu"), config.get("upsample_fn", "nearest")
    if name not in ACTIVATIONS or config.get("upsampling_scaling_factor", 2) != 2:
        raise UserError(
            f"an AutoencoderTiny with act_fn {name} or another upsampling_scaling_factor than 2 is not known here"
        )
    weights = read_weights(folder)
    try:
        encoder = encoder_like(_inside(weights, "encoder.layers."), ACTIVATIONS[name])
        decoder = decoder_like(_inside(weights, "decoder.layers."), ACTIVATIONS[name], up)
        coder = TinyCoder(encoder, decoder, True, config.get("shift_factor") or 0.0, config.get("scaling_factor", 1.0))
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"the weights in {folder} are of another layout than an AutoencoderTiny's: {error}") from error
    fill(coder, weights, folder)
    return coder


def read_pair(name: str, folder: Path) -> TinyCoder:
    """The autoencoder in a pair of files, such as taef2_encoder.pth and taef2_decoder.pth.

    Raises:
        UserError: files that are not there or of another layout.
    """
    states = [read_state(folder / f"{name}_{half}.pth") for half in ("encoder", "decoder")]
    try:
        coder = TinyCoder(encoder_like(states[0]), decoder_like(states[1]), False)
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"the weights of {name} in {folder} are of a layout that is not known here: {error}") from error
    fill(coder.encoder.layers, states[0], folder)
    fill(coder.decoder.layers, states[1], folder)
    return coder
