"""How samples came about, side by side: a row for each sample, a column for each of some moments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unstir.data.spec import DataSpec
from unstir.errors import UserError
from unstir.media.files import replacing
from unstir.media.grid import picture_grid
from unstir.media.render import as_bytes

ROWS, COLUMNS = 12, 10
FORMATS = {".png": "PNG", ".webp": "WEBP"}


def check_strip(path: Path, spec: DataSpec) -> None:
    """Whether such a picture can be drawn of such data, and written there.

    Raises:
        UserError: it cannot.
    """
    if path.suffix.lower() not in FORMATS or spec.kind != "image":
        raise UserError(
            f"--beliefs draws pictures in a row into {' or '.join(FORMATS)}, or an animation of any data into .gif or .webp, not {path.name}"
        )


def write_strip(states: Sequence[np.ndarray[Any, Any]], path: Path, spec: DataSpec) -> Path:
    """Writes the first samples at evenly spread moments, the last among them.

    Args:
        states: (N, ...) each, in the data's units, in order of time.
        path: of a picture, by its ending.
        spec: of the data, which are pictures.
    """
    chosen = np.unique(np.linspace(0, len(states) - 1, min(COLUMNS, len(states))).round().astype(int))
    shown = np.stack([as_bytes(states[i][:ROWS], spec) for i in chosen], 1)  # (rows, columns, H, W, C)
    picture = picture_grid(shown.reshape(-1, *shown.shape[2:]), columns=len(chosen))
    with replacing(path) as file:
        picture.save(file, format=FORMATS[path.suffix.lower()])
    return path
