"""One picture of any samples: a grid of pictures, small line plots, a scatter plot, slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from unstir.data.spec import DataSpec
from unstir.media.grid import best_columns, picture_grid, volume_pictures
from unstir.media.plot import points_plot, signal_grid
from unstir.media.text import PALE, font

Array = np.ndarray[Any, Any]
MOST = {"image": 400, "volume": 64, "signal": 64, "points": 50_000}  # samples in one picture
MOST_CAPTIONS = 100
SMALL_CELL = 64  # pixels


def render(
    x: Array,
    spec: DataSpec,
    labels: Sequence[int] | Sequence[str] | npt.NDArray[Any] | None = None,
    *,
    like: Array | None = None,
    small: bool = False,
) -> Image.Image:
    """One picture of samples of any kind.

    Only the first 400 pictures, 64 volumes, 64 signals or 50,000 points are shown; a line at the foot says so then.
    Classes stand left of the rows where the samples come class by class in equally long runs, else under each sample.

    Args:
        x: (N, ...) in the data's own units and axis order.
        labels: class numbers (-1: not known) or names, one a sample.
        like: samples that set the limits of a plot's axes (default: x); an animation gives the last state here.
        small: for an animation: fewer pixels.
    """
    most = MOST[spec.kind]
    names = class_names(labels, spec)
    picture = RENDERERS[spec.kind](x[:most], spec, names[:most] if names else None, x if like is None else like, small)
    return picture if len(x) <= most else _footer(picture, f"the first {most:,} of {len(x):,}")


def class_names(labels: Sequence[int] | Sequence[str] | npt.NDArray[Any] | None, spec: DataSpec) -> list[str] | None:
    """Class numbers or names -> names; "" where the class is not known."""
    if labels is None:
        return None
    values = np.asarray(labels)
    if values.dtype.kind not in "iu":
        return [str(value) for value in values.tolist()]
    condition = spec.conditions.get("label")
    names = condition.names if condition is not None else ()
    return ["" if i < 0 else names[i] if i < len(names) else str(i) for i in values.tolist()]


def axes_of(x: Array, spec: DataSpec) -> Array:
    """(N, ...) in the data's own axis order -> a view (N, C, ...)."""
    if not spec.channel_axis:
        return x[:, None]
    return np.moveaxis(x, -1, 1) if spec.channels_last else x


def as_bytes(x: Array, spec: DataSpec) -> npt.NDArray[np.uint8]:
    """Pictures or volumes in any units -> (N, ..., C) uint8 to look at.

    uint8 stays as it is. Else offset - scale is black and offset + scale white where these are the ends of the data's range
    (unsigned integers, floats in [0, 1] or [-1, 1]); where they are a mean and a standard deviation, 2.5 of these are.
    """
    x = np.moveaxis(axes_of(x, spec), 1, -1)
    if x.dtype == np.uint8:
        return np.asarray(x)
    offset, scale = np.array(spec.offset), np.array(spec.scale)
    ends = x.dtype.kind == "u" or {(o, s) for o, s in zip(spec.offset, spec.scale)} <= {(0.5, 0.5), (0.0, 1.0)}
    reach = scale if ends else 2.5 * scale
    unit = (np.asarray(x, np.float64) - offset + reach) / (2 * reach)
    return np.asarray(np.rint(255 * np.clip(np.nan_to_num(unit), 0, 1)).astype(np.uint8))


def runs(names: Sequence[str]) -> int | None:
    """The length k where names are a a a b b b ...: k the same for all, at least 2 and at most 20; else None."""
    changes = [i for i in range(1, len(names)) if names[i] != names[i - 1]]
    length = changes[0] if changes else len(names)
    regular = changes == list(range(length, len(names), length)) and len(names) % length == 0
    return length if regular and 2 <= length <= 20 and changes else None


def _pictures(pictures: npt.NDArray[np.uint8], names: list[str] | None, small: bool) -> Image.Image:
    background = "checker" if pictures.shape[-1] in (2, 4) else "white"
    scale = max(1, SMALL_CELL // max(pictures.shape[1:3])) if small else None
    if not names or not any(names) or len(set(names)) == 1:
        return picture_grid(pictures, scale=scale, background=background)
    run = runs(names)
    if run:
        return picture_grid(pictures, run, scale, row_labels=names[::run], background=background)
    captions = names if len(names) <= MOST_CAPTIONS and not small else None
    return picture_grid(pictures, scale=scale, labels=captions, background=background)


def _image(x: Array, spec: DataSpec, names: list[str] | None, like: Array, small: bool) -> Image.Image:
    return _pictures(as_bytes(x, spec), names, small)


def _volume(x: Array, spec: DataSpec, names: list[str] | None, like: Array, small: bool) -> Image.Image:
    volumes = np.moveaxis(as_bytes(x, spec), -1, 1)  # (N, C, D, H, W)
    return _pictures(volume_pictures(volumes), names if len(x) > 1 else None, small)


def _signal(x: Array, spec: DataSpec, names: list[str] | None, like: Array, small: bool) -> Image.Image:
    titles = names if names and len(set(names)) > 1 else None
    run = runs(names) if names else None
    scale = 1 if small else 2 if len(x) <= 4 else 1.5
    shown, limits = axes_of(x, spec), axes_of(like, spec)
    return signal_grid(
        shown, None, spec.channels, titles, limits, columns=run or best_columns(len(x), 2, 3), scale=scale
    )


def _points(x: Array, spec: DataSpec, names: list[str] | None, like: Array, small: bool) -> Image.Image:
    flat = x.reshape(len(x), -1)
    return points_plot(flat, spec.channels, names, like.reshape(len(like), -1), scale=1 if small else 2)


def _footer(picture: Image.Image, words: str) -> Image.Image:
    size = 13
    canvas = Image.new("RGB", (picture.width, picture.height + 2 * size), "white")
    canvas.paste(picture)
    ImageDraw.Draw(canvas).text((picture.width / 2, picture.height + size), words, PALE, font(size), anchor="mm")
    return canvas


RENDERERS: dict[str, Callable[[Array, DataSpec, list[str] | None, Array, bool], Image.Image]] = {
    "image": _image,
    "signal": _signal,
    "points": _points,
    "volume": _volume,
}
