"""Loading networks with weights that somebody published."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from unstir.errors import UserError


def load_into(build: Callable[[], nn.Module], file: Path, what: str) -> nn.Module:
    """A network with the weights of a file: every name and shape must agree. It is made without memory or random numbers of its own,
    so that a training it is called from goes on as if it had not been.

    Raises:
        UserError: no such file, or not these weights.
    """
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the weights of {what} in {file}: {error.strerror or error}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise UserError(f"{file} does not hold weights of {what}: it is damaged, or another kind of file") from error
    with torch.device("meta"):
        network = build()
    try:
        network.load_state_dict(weights, strict=True, assign=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{file} does not hold the weights of {what}: {reason[:200]}") from error
    return network.float()


def fold(module: nn.Module, convolution: str, norm: str) -> None:
    """Takes a batch normalisation, which is a fixed scale and shift by now, into the convolution before it.

    Equation:
        norm(W x) = g W x + (b - g m),  g = gamma / sqrt(v + epsilon)
    Source:
        Ioffe & Szegedy 2015, algorithm 2, line 11, https://arxiv.org/abs/1502.03167
    """
    before, after = getattr(module, convolution), getattr(module, norm)
    setattr(module, convolution, nn.utils.fuse_conv_bn_eval(before.eval(), after.eval()))
    setattr(module, norm, nn.Identity())
