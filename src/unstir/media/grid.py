"""Pictures side by side in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from unstir.media.text import INK, fit_text, font, text_width

CELL = 96  # pixels: small pictures are enlarged towards this
LARGEST = 1600  # pixels: a grid is not enlarged beyond this
TEXT = 13  # pixels
WIDEST = 320  # pixels of a name left of a row; what is longer loses its end
CHECKER = ((255, 255, 255), (226, 228, 232))
CHECK = 8  # pixels


def picture_grid(
    x: npt.NDArray[np.uint8],
    columns: int | None = None,
    scale: int | None = None,
    labels: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    padding: int = 2,
    background: str = "white",
) -> Image.Image:
    """Pictures in reading order, each enlarged a whole number of times so that every pixel stays a square.

    Cell (row, column) of pictures (H, W) starts, where there are no labels, at pixel
    (padding + row (scale H + padding), padding + column (scale W + padding)).

    Args:
        x: (N, H, W, C) or (N, H, W) uint8. C = 1: grey; 2: grey and alpha; 3: RGB; 4: RGBA; more: the channels side by side, grey.
        columns: default: about square, with few empty places (``best_columns``).
        scale: default: the cells come near 96 pixels, the whole stays under 1600 where it can (``best_scale``).
        labels: a caption under each picture, cut to its width.
        row_labels: a name left of each row.
        padding: pixels around every picture.
        background: a colour that Pillow knows; "checker" is white, with a chequered pattern under transparent pictures.

    Returns:
        RGB.

    Raises:
        ValueError: no pictures, or an array that holds none.
    """
    pictures = as_pictures(x)
    n, height, width = pictures.shape[:3]
    if n == 0:
        raise ValueError("a grid needs at least one picture")
    columns = columns or best_columns(n, height, width)
    rows = math.ceil(n / columns)
    scale = scale or best_scale(height, width, rows, columns, padding)
    names = [fit_text(name, TEXT, WIDEST) for name in row_labels or ()]
    left = max((text_width(name, TEXT) for name in names), default=-TEXT) + TEXT
    below = TEXT + 5 if labels is not None else 0
    step_y, step_x = scale * height + padding + below, scale * width + padding

    paper = "white" if background == "checker" else background
    canvas = Image.new("RGB", (left + padding + columns * step_x, padding + rows * step_y), paper)
    draw = ImageDraw.Draw(canvas)
    for i, picture in enumerate(pictures):
        top, start = padding + i // columns * step_y, left + padding + i % columns * step_x
        cell = Image.fromarray(picture).resize((scale * width, scale * height), Image.Resampling.NEAREST)
        canvas.paste(flatten(cell, background), (start, top))
        if labels is not None:
            place = (start + scale * width / 2, top + scale * height + 2)
            draw.text(place, fit_text(labels[i], TEXT, step_x), INK, font(TEXT), anchor="ma")
    for row, name in enumerate(names[:rows]):
        draw.text((left - TEXT // 2, padding + row * step_y + scale * height / 2), name, INK, font(TEXT), anchor="rm")
    return canvas


def as_pictures(x: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(N, H, W) or (N, H, W, C) -> (N, H, W', 3 or 4), what Pillow shows."""
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise ValueError(f"pictures are uint8 (N, H, W) or (N, H, W, C), not {x.dtype} of shape {x.shape}")
    if x.ndim == 3:
        x = x[..., None]
    channels = x.shape[-1]
    if channels == 1:
        x = np.repeat(x, 3, axis=-1)
    elif channels == 2:
        x = x[..., [0, 0, 0, 1]]
    elif channels > 4:
        wide = np.moveaxis(x, -1, 2).reshape(len(x), x.shape[1], -1, 1)  # (N, H, C W, 1)
        x = np.repeat(wide, 3, axis=-1)
    return np.ascontiguousarray(x)


def flatten(picture: Image.Image, background: str = "white") -> Image.Image:
    """A picture without transparency: laid on a colour, or on a "checker" pattern."""
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    if background == "checker":
        row, column = np.indices((picture.height, picture.width)) // CHECK
        under = Image.fromarray(np.array(CHECKER, dtype=np.uint8)[(row + column) % 2])
    else:
        under = Image.new("RGB", picture.size, background)
    return Image.alpha_composite(under.convert("RGBA"), picture).convert("RGB")


def best_columns(n: int, height: int = 1, width: int = 1) -> int:
    """The number of columns, from square to twice as wide, that leaves the fewest places empty: 64 -> 8, 10 -> 5, 3 -> 3."""
    square = math.ceil(math.sqrt(n * height / width))
    choices = range(max(1, min(square, n)), max(1, min(math.ceil(1.5 * square), n)) + 1)
    return min(choices, key=lambda columns: (-n % columns, columns))


def best_scale(height: int, width: int, rows: int, columns: int, padding: int = 2) -> int:
    """How many times to enlarge: the cells' short side at most 96 pixels, the whole within 1600; at least 1."""
    across, down = ((LARGEST - padding) / count - padding for count in (columns, rows))
    return max(1, int(min(across // width, down // height, CELL // min(height, width))))


def volume_pictures(x: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Volumes (N, C, D, H, W) -> pictures (N, H', W', C): the middle slices across D, H and W side by side.

    One volume alone becomes all its slices across D (at most 64, evenly spread), each a picture.
    """
    _, channels, depth, height, width = x.shape
    if len(x) == 1:
        chosen = np.unique(np.linspace(0, depth - 1, min(depth, 64)).round().astype(int))
        return np.moveaxis(x[0][:, chosen], 0, -1)
    tall = max(height, depth)
    slices = [
        x[:, :, depth // 2],
        x[:, :, :, height // 2],
        x[..., width // 2],
    ]  # (N, C, H, W), (N, C, D, W), (N, C, D, H)
    gap = np.full((len(x), channels, tall, 1), 255, dtype=np.uint8)
    parts: list[np.ndarray[Any, Any]] = []
    for part in slices:
        spare = tall - part.shape[2]
        parts += [np.pad(part, ((0, 0), (0, 0), (spare // 2, spare - spare // 2), (0, 0))), gap]
    return np.moveaxis(np.concatenate(parts[:-1], axis=-1), 1, -1)
