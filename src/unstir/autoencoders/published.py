"""What published autoencoders have in common: pictures only, files that may be damaged, latents with units of their own."""

from __future__ import annotations

import json
import pickle
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from unstir.errors import UserError
from unstir.networks.coder import Coder

Weights = dict[str, Tensor]
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "model.safetensors")
"""Names under which folders hold them."""


class PublishedCoder(Coder):
    """Encoder and decoder of pictures in [-1, 1], whose latents are given in the units in which published denoisers take them.

    Equation:
        z = (E(x) - shift) · scale
    Source:
        Rombach et al. 2022, appendix G, https://arxiv.org/abs/2112.10752 (scale); diffusers, "scaling_factor" and "shift_factor" of an autoencoder's config.json

    Args:
        shift, scale: a number, or one for each latent channel.
    """

    shift: Tensor
    scale: Tensor
    rank = 2

    def __init__(self, shift: object = 0.0, scale: object = 1.0) -> None:
        super().__init__()
        for name, value in (("shift", shift), ("scale", scale)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1))

    @abstractmethod
    def raw_encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the encoder's own latents (B, c, H / factor, W / factor): the posterior's mean, where there is one."""

    @abstractmethod
    def raw_decode(self, z: Tensor) -> Tensor:
        """The decoder's own latents -> (B, C, H, W)."""

    def encode(self, x: Tensor) -> Tensor:
        return (self.raw_encode(x) - self.shift) * self.scale  # (B, c, H / factor, W / factor)

    def decode(self, z: Tensor) -> Tensor:
        return self.raw_decode(z / self.scale + self.shift)  # (B, C, H, W)


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return config


def read_weights(folder: Path) -> Weights:
    """A folder's weights, in single precision.

    Raises:
        UserError: there are none in one safetensors file, or it is damaged.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise UserError(
            f"{folder} holds no {WEIGHTS[0]}; weights in another format are not read (diffusers' save_pretrained writes this one)"
        )
    try:
        weights = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, RuntimeError, OSError) as error:
        raise UserError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    return {name: value.float() for name, value in weights.items()}


def read_state(path: Path) -> Weights:
    """A PyTorch file of tensors alone, in single precision.

    Raises:
        UserError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.float() for name, value in state.items()}
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, AttributeError) as error:
        raise UserError(f"{path} does not hold weights: it is damaged, or another kind of file") from error


def fill(module: nn.Module, weights: Mapping[str, Tensor], what: object) -> None:
    """Takes the weights over; every name and shape must agree, but for the latents' units, which stay.

    Raises:
        UserError: with the first that does not.
    """
    try:
        units = {name: value for name, value in module.state_dict().items() if name in ("shift", "scale")}
        module.load_state_dict({**weights, **units})
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"the weights in {what} do not fit its configuration: {reason[:200]}") from error
