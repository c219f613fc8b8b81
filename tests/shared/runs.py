"""What tests of the command line need: a run's weights, weights as if it had learnt something, and what a refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from unstir.cli import run
from unstir.errors import UserError


def weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights that samples are drawn with."""
    return safetensors.torch.load_file(folder / "model.safetensors")


def as_if_learnt(folder: Path, much: float = 0.1) -> Path:
    """A few steps teach a network little of its conditions, and many layers begin at 0: a little of everything is added."""
    generator, changed = torch.Generator().manual_seed(0), weights(folder)
    for value in changed.values():
        if value.is_floating_point():
            value += much * torch.randn(value.shape, generator=generator).to(value)
    safetensors.torch.save_file(changed, folder / "model.safetensors")
    return folder


def said(*words: str | Path) -> str:
    """What the command line says where it refuses: one or two lines."""
    with pytest.raises(UserError) as error:
        run([str(word) for word in words])
    message = str(error.value)
    assert len(message.splitlines()) <= 2
    return message
