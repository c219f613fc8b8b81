"""Codecs: what stands between the data and the space in which a denoiser works.

Most denoisers work on the data themselves (``IDENTITY``). Latent diffusion works on what an autoencoder makes of them. Which of the two it
is, processes, samplers, objectives and networks never ask: they are given ``latent_spec`` in place of the data's description. Whatever leaves
a ``Model`` has been decoded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unstir.autoencoder import Autoencoder
from unstir.data.spec import DataSpec
from unstir.fingerprint import fingerprint
from unstir.networks.layers import pad_to_multiple, space_to_depth

NEEDED = "?"
"""``Recipe.autoencoder`` of a recipe that works in latents, where nobody has named an autoencoder yet."""
AT_ONCE = 16
"""Samples that go through an autoencoder together: always so many, since a convolution's last bits may hang on the size of its batch."""


class Codec(ABC):
    """Samples in model units to what a denoiser works on, and back.

    Attributes:
        fingerprint: of that space: what two models must share to work together. "" of the data themselves.
    """

    fingerprint: str = ""

    @property
    def latent(self) -> bool:
        """Whether the denoiser works on something else than the data."""
        return bool(self.fingerprint)

    @abstractmethod
    def latent_spec(self, spec: DataSpec) -> DataSpec:
        """The description of such data as the denoiser sees them. Conditions on the data's grid are on its own there (``told``)."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """(B, *spec.shape) in model units -> (B, *latent_spec.shape)."""

    @abstractmethod
    def decode(self, z: Tensor, spec: DataSpec) -> Tensor:
        """(B, *latent_spec.shape) -> (B, *spec.shape) in model units, within the data's bounds; gradients go through it."""

    @abstractmethod
    def told(self, cond: Mapping[str, Tensor], spec: DataSpec) -> dict[str, Tensor]:
        """Conditions of such data, (B, ...) each, as the denoiser is told them: grids of theirs brought to its own grid."""

    @abstractmethod
    def cells(self, fill: Tensor) -> Tensor:
        """Which places of the denoiser's grid a mask (1 or C, *grid) touches at all: those that it leaves are known wholly."""

    def to(self, device: torch.device | str) -> Codec:
        """Moves the weights, where there are some."""
        return self

    def facts(self) -> dict[str, Any]:
        """What a run folder keeps of it, plain values; nothing where there is nothing to keep."""
        return {}


class Identity(Codec):
    """The denoiser works on the data themselves."""

    def latent_spec(self, spec: DataSpec) -> DataSpec:
        return spec

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor, spec: DataSpec) -> Tensor:
        return z

    def told(self, cond: Mapping[str, Tensor], spec: DataSpec) -> dict[str, Tensor]:
        return dict(cond)

    def cells(self, fill: Tensor) -> Tensor:
        return fill


IDENTITY = Identity()


def fingerprint_of(autoencoder: Autoencoder) -> str:
    """A hash of an autoencoder's kind and weights."""
    network = autoencoder.network
    sizes = network.rank, network.channels, network.factor, network.latent_channels
    return fingerprint(network, type(network).__name__, *sizes)


class LatentCodec(Codec):
    """An autoencoder, and the units in which its latents have mean 0 and standard deviation 1 in every channel.

    Autoencoders leave their latents at any scale, and a process takes data of about unit variance for granted. Latents have no range, so
    a belief about them is never clipped.

    Equation:
        z = (E(x) - mean) / std,   x = D(std z + mean),   mean and std of each channel of the latents of the training data
    Source:
        Rombach et al. 2022, appendix G (rescaling by one standard deviation; here one for each channel, and the mean), https://arxiv.org/abs/2112.10752

    Args:
        autoencoder: in ``eval`` mode.
        offset, scale: mean and standard deviation of its latents, one number per channel.
        known: the fingerprint, where it has been worked out already.
    """

    def __init__(
        self, autoencoder: Autoencoder, offset: tuple[float, ...], scale: tuple[float, ...], known: str = ""
    ) -> None:
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.offset, self.scale = offset, scale
        self.fingerprint = known or fingerprint_of(autoencoder)

    @property
    def factor(self) -> int:
        """Entries of the data's grid to one of the latents', along each axis."""
        return self.autoencoder.factor

    def in_units(self, offset: tuple[float, ...], scale: tuple[float, ...]) -> LatentCodec:
        """The same autoencoder with other units of its latents."""
        return LatentCodec(self.autoencoder, offset, scale, self.fingerprint)

    def latent_spec(self, spec: DataSpec) -> DataSpec:
        grid = self.autoencoder.small(spec.shape[1:])
        cut: int = self.factor**spec.rank
        conditions = {
            name: replace(c, shape=(c.shape[0] * cut, *grid)) if c.kind == "grid" else c
            for name, c in spec.conditions.items()
        }
        return DataSpec(
            kind=spec.kind,
            shape=(self.autoencoder.latent_channels, *grid),
            offset=self.offset,
            scale=self.scale,
            conditions=conditions,
        )

    def _row(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 2))

    def raw(self, x: Tensor) -> Tensor:
        """(B, *spec.shape) -> the autoencoder's own latents, in its own units."""
        return torch.cat([self.autoencoder.encode(part) for part in torch.split(x, AT_ONCE)])  # (B, c, *small grid)

    def encode(self, x: Tensor) -> Tensor:
        z = self.raw(x)  # (B, c, *small grid)
        return (z - self._row(self.offset, z)) / self._row(self.scale, z)  # (B, c, *small grid)

    def decode(self, z: Tensor, spec: DataSpec) -> Tensor:
        raw = z * self._row(self.scale, z) + self._row(self.offset, z)  # (B, c, *small grid)
        parts = [self.autoencoder.decode(part, spec.shape[1:]) for part in torch.split(raw, AT_ONCE)]
        x = torch.cat(parts)  # (B, C, *grid)
        return x.clamp(*spec.bounds) if spec.bounds else x

    def told(self, cond: Mapping[str, Tensor], spec: DataSpec) -> dict[str, Tensor]:
        """Grids are cut into blocks of the factor's side, each of which becomes the channels of one latent: nothing of them is lost, and no
        encoder is asked."""
        grids = {name for name, condition in spec.conditions.items() if condition.kind == "grid"}
        return {name: self._blocks(value) if name in grids else value for name, value in cond.items()}

    def _blocks(self, x: Tensor) -> Tensor:
        return space_to_depth(pad_to_multiple(x, self.factor), self.factor)  # (B, C factor^rank, *small grid)

    def cells(self, fill: Tensor) -> Tensor:
        blocks = self._blocks(fill.unsqueeze(0).to(torch.float32))  # (1, C factor^rank, *small grid)
        return (blocks > 0).any(1)  # (1, *small grid)

    def to(self, device: torch.device | str) -> LatentCodec:
        self.autoencoder.to(device)
        return self

    def facts(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "factor": self.factor,
            "offset": list(self.offset),
            "scale": list(self.scale),
        }
