"""What shows best what a model can do: some samples of every class, or of some captions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unstir.conditioning.text import evenly
from unstir.data import Condition

SHOWN = {"image": 64, "signal": 32, "volume": 32, "points": 2000}
"""Samples in a picture, by kind of data, where nobody said how many."""


def showcase(
    known: Mapping[str, Condition], kind: str, columns: int = 0
) -> tuple[int, dict[str, Tensor | npt.NDArray[np.str_]]]:
    """(how many samples, their labels or captions): some of every class, at most 16 classes, or of 16 captions of the data.

    Args:
        known: what samples can be asked for by.
        kind: of the data.
        columns: samples of each class; by default as many as a picture of this kind of data holds well.
    """
    captions = next(((name, c.names) for name, c in known.items() if c.kind == "text" and c.seen and c.names), None)
    if captions is not None:
        examples = evenly(captions[1], 16)
        columns = columns or max(SHOWN[kind] // 16, 1)
        return columns * len(examples), {captions[0]: np.repeat(np.array(examples), columns)}
    name, classes = next(((name, c.size) for name, c in known.items() if c.named), ("", 1))
    classes = min(classes, 16)
    columns = columns or (SHOWN[kind] if classes == 1 else max(SHOWN[kind] // 8, 4))
    n = columns * classes
    return n, {name: torch.arange(n) // columns} if name else {}
