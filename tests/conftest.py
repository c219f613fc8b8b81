"""What several test files need: small data, and a quiet machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the tests' numbers are the CPU's


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """pytest-xdist runs a process per core; more threads than cores only get in each other's way."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data that a clone does not have."""
    folder = Path(os.environ.get("UNSTIR_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs real data in {folder} (set UNSTIR_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_arrays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small .npz of every kind of data, with two classes and captions."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    shapes = {"image": (40, 12, 10, 3), "signal": (40, 50, 2), "points": (40, 2)}
    paths = {}
    for kind, shape in shapes.items():
        x = rng.normal(size=shape).astype(np.float32) + y.reshape(-1, *[1] * (len(shape) - 1)).astype(np.float32)
        if kind == "image":
            x = np.clip(x * 40 + 100, 0, 255).astype(np.uint8)
        paths[kind] = folder / f"{kind}.npz"
        np.savez(
            paths[kind], x=x, y=y, classes=np.array(["zero", "one"]), text=np.array(["a low one", "a high one"])[y]
        )
    return paths
