"""What tells a trained network from any other: a hash of its weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn


def fingerprint(module: nn.Module, *facts: Any) -> str:
    """A hash of a module's weights, and of plain facts about it that the weights do not show."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(facts).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
