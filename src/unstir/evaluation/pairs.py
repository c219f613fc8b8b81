"""The picture of the memorisation check: samples beside their nearest training neighbours, the most suspicious first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from unstir.data import Dataset, DataSpec
from unstir.errors import UserError
from unstir.evaluation.embed import Array
from unstir.evaluation.neighbours import NeighbourValue
from unstir.evaluation.samples import SampleSource, order, rows_of
from unstir.media.grid import picture_grid, volume_pictures
from unstir.media.plot import signal_grid
from unstir.media.render import as_bytes, axes_of

PAIRS = 24
ACROSS = 4  # pairs in a row


def _image(x: Array, spec: DataSpec, captions: list[str]) -> Image.Image:
    background = "checker" if x.shape[-1] in (2, 4) else "white"
    return picture_grid(x, 2 * ACROSS, labels=captions, background=background)


def _volume(x: Array, spec: DataSpec, captions: list[str]) -> Image.Image:
    return picture_grid(volume_pictures(np.moveaxis(as_bytes(x, spec), -1, 1)), 2 * ACROSS, labels=captions)


def _signal(x: Array, spec: DataSpec, captions: list[str]) -> Image.Image:
    return signal_grid(axes_of(x, spec), None, spec.channels, captions, columns=ACROSS)


PICTURES: dict[str, Callable[[Array, DataSpec, list[str]], Image.Image]] = {
    "image": _image,
    "volume": _volume,
    "signal": _signal,
}


def check_kind(spec: DataSpec) -> None:
    """Whether there is such a picture of this kind of data.

    Raises:
        UserError: if not.
    """
    if spec.kind not in PICTURES:
        raise UserError(
            f"--out draws samples beside their nearest training neighbours, which {spec.kind} have no picture of"
        )


def pairs_picture(source: SampleSource, training: Dataset, found: NeighbourValue, pairs: int = PAIRS) -> Image.Image:
    """Pairs (sample, its nearest of the training data), row by row; the caption is their distance over the median of real data.

    Args:
        source: draws the samples again, by their numbers.
        training: what the check compared with.
        found: its outcome.
        pairs: how many.
    """
    numbers = found.order[:pairs].tolist()
    samples = source.draw(numbers)
    rows = order(len(training))[found.rows[numbers].numpy()]
    neighbours = rows_of(training, rows)
    both = np.stack([samples, neighbours], axis=1).reshape(-1, *samples.shape[1:])
    captions = [text for i, row in zip(numbers, rows) for text in (f"{i}: {found.ratios[i]:.2f}", f"data {row}")]
    return PICTURES[training.spec.kind](both, training.spec, captions)
