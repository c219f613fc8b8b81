"""What tests of the command line need: the smallest U-Net, what is in a run folder, weights as if it had learnt something, and what is said."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from unstir.cli import run
from unstir.errors import UserError
from unstir.run import Run
from unstir.training.checkpoint import Checkpoints
from unstir.training.session import Session

UNET = ["--network.channels", "8", "--network.middle", "1", "--network.head-channels", "8"]
"""The smallest that there is."""


def weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights that samples are drawn with."""
    return safetensors.torch.load_file(folder / "model.safetensors")


def same_weights(a: Path, b: Path) -> bool:
    """Whether two runs draw with the same weights, to the bit."""
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def state_of(folder: Path) -> dict[str, Any]:
    """The last checkpoint, none of which is broken."""
    state, broken = Checkpoints(folder / "checkpoints", 3).load()
    assert not broken
    return state


def session_of(folder: Path) -> Session:
    """A run as training sees it."""
    from accelerate import Accelerator

    from unstir.data import load

    name, recipe, _ = Run(folder).read_recipe()
    return Session(Run(folder), name, recipe, load(recipe.data), Accelerator(cpu=True))


def as_if_learnt(folder: Path, much: float = 0.1) -> Path:
    """A few steps teach a network little of its conditions, and many layers begin at 0: a little of everything that is learnt is added.
    What a linear belief has read off the data stays: a variance with something added may be none."""
    generator, changed = torch.Generator().manual_seed(0), weights(folder)
    for name, value in changed.items():
        if value.is_floating_point():
            added = much * torch.randn(value.shape, generator=generator).to(value)
            value += 0 if name.startswith("linear.") else added
    safetensors.torch.save_file(changed, folder / "model.safetensors")
    return folder


def said(*words: str | Path) -> str:
    """What the command line says where it refuses: one or two lines."""
    with pytest.raises(UserError) as error:
        run([str(word) for word in words])
    message = str(error.value)
    assert len(message.splitlines()) <= 2
    return message


def told_command(info: str, name: str) -> list[str]:
    """The words of the command that ``unstir info`` names so, without the program's own."""
    line = next(line for line in info.splitlines() if line.startswith(f"  {name} "))
    program, *words = shlex.split(line.removeprefix(f"  {name}"))
    assert program == "unstir"
    return words


def picture(path: Path, *shape: int) -> np.ndarray[Any, Any]:
    """Writes random pixels, (H, W) or (H, W, 3)."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels
