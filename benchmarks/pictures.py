"""The pictures that the benchmarks run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contenders.contender import Pictures
from unstir.data import BUILTIN, DataConfig, load
from unstir.errors import UserError

__all__ = ["Pictures", "padded", "read", "source_at_hand"]


def source_at_hand() -> str:
    """Fashion-MNIST where it is installed, else the built-in emoji, so that the benchmarks run everywhere."""
    try:
        BUILTIN["fashion-mnist"](DataConfig())
    except UserError:
        return "emoji"
    return "fashion-mnist"


def read(source: str) -> Pictures:
    """All pictures of a SOURCE, (N, H, W, C) uint8.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    if Path(source).suffix == ".npz":  # samples and their like: at their own size, without decoding
        with np.load(source, allow_pickle=False) as archive:
            x = archive["arr_0" if "arr_0" in archive.files else "x"]
    else:
        x = np.asarray(load(DataConfig(source=source)).x)
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise UserError(f"{source} holds {x.dtype} {x.shape}, and the benchmarks run on pictures of bytes")
    pictures: Pictures = x[..., None] if x.ndim == 3 else x
    return pictures


def padded(x: Pictures, size: int) -> Pictures:
    """With a border of 0 up to a square of this size."""
    rows, columns = size - x.shape[1], size - x.shape[2]
    border = ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    result: Pictures = np.pad(x, border)
    return result
