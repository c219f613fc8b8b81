"""Pictures of one size, and on one background.

Scaling averages over the area that a pixel comes from (no aliasing). Where both sides shrink by whole numbers it is the
mean of each block, rounded once (halves up; Pillow's fixed-point division is right to 0.56 of a level). Otherwise
Lanczos, rounded after each direction. What already has the size is not touched, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor

from unstir.data.contents import Array
from unstir.errors import UserError

Fit = Literal["crop", "pad", "stretch"]


def colour(name: str) -> tuple[int, int, int]:
    """(R, G, B) of a colour name or #rrggbb; a UserError if it is neither."""
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError:
        raise UserError(f"--data.background {name}: not a colour; use a name (white, black, ...) or #rrggbb") from None
    return red, green, blue


def composite(rgba: Array, background: str) -> npt.NDArray[np.uint8]:
    """Lays (..., 4) uint8 with straight alpha on a colour: round((alpha rgb + (255 - alpha) background) / 255), halves
    up."""
    below = np.array(colour(background), dtype=np.uint16)
    alpha = rgba[..., 3:].astype(np.uint16)
    # Division by 255, rounded, in 16 bits: exact for every product of two bytes (J. Blinn 1995, "Three wrongs make a right").
    sum_ = rgba[..., :3] * alpha + below * (255 - alpha) + 128
    return np.asarray((sum_ + (sum_ >> 8)) >> 8, dtype=np.uint8)


def as_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """(H, W) of the option --data.size; one number means a square."""
    if size is None:
        return None
    if len(size) not in (1, 2) or min(size) < 1:
        raise UserError(
            f"--data.size {' '.join(map(str, size))}: give a height and a width, or one number for a square"
        )
    return size[0], size[-1]


def fit_picture(picture: Image.Image, size: tuple[int, int], fit: Fit, background: str) -> Image.Image:
    """A picture of any mode that Pillow can scale -> (H, W). Transparent colours don't bleed: Pillow scales RGBA
    premultiplied.

    crop: scaled to cover the size, the middle is kept. pad: scaled to lie inside, centred on the background.
    stretch: both sides scaled on their own.
    """
    height, width = size
    if (picture.height, picture.width) == size:
        return picture
    if fit == "stretch":
        return _scale(picture, (width, height), (0, 0, picture.width, picture.height))
    if fit == "pad":
        ratio = min(width / picture.width, height / picture.height)
        inner = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
        scaled = _scale(picture, inner, (0, 0, picture.width, picture.height))
        canvas = Image.new(picture.mode, (width, height), _fill(picture.mode, background))
        canvas.paste(scaled, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return canvas
    ratio = max(width / picture.width, height / picture.height)
    kept = width / ratio, height / ratio
    left_, top_ = (picture.width - kept[0]) / 2, (picture.height - kept[1]) / 2
    box = (max(left_, 0), max(top_, 0), min(left_ + kept[0], picture.width), min(top_ + kept[1], picture.height))
    return _scale(picture, (width, height), box)


def _scale(picture: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    ratios = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    if all(ratio >= 1 and math.isclose(ratio, round(ratio), rel_tol=1e-9) for ratio in ratios):
        across, down = round(ratios[0]), round(ratios[1])
        left, top = int(box[0] + 1e-6), int(box[1] + 1e-6)  # half a pixel off the middle is better than a blur
        # By 1 and 1 this is a crop, to the bit. Not resize(BOX), which rounds twice, once for each direction.
        return picture.reduce((across, down), (left, top, left + across * size[0], top + down * size[1]))
    # A first, coarse reduction for very large pictures; at a gap of 3 its error is below the rounding.
    return picture.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _fill(mode: str, background: str) -> float | tuple[int, ...]:
    rgb = colour(background)
    if mode == "RGBA":
        return (0, 0, 0, 0)
    if mode in ("RGB", "L"):
        return rgb if mode == "RGB" else round(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2])
    return 0.0


def fit_array(x: Array, size: tuple[int, int], fit: Fit, background: str) -> Array:
    """(N, H, W, C) of any dtype -> (N, *size, C): uint8 pictures of 1, 3 or 4 channels as ``fit_picture`` does; others
    channel by channel in float32, rounded to the dtype's range where it is an integer one, padded with zeros."""
    if x.shape[1:3] == size:
        return x
    n, *_, channels = x.shape
    result = np.empty((n, *size, channels), dtype=x.dtype)
    if x.dtype == np.uint8 and channels in (1, 3, 4):
        for i in range(n):
            picture = Image.fromarray(x[i, ..., 0] if channels == 1 else x[i])
            result[i] = np.asarray(fit_picture(picture, size, fit, background)).reshape(*size, channels)
        return result
    for i in range(n):
        for c in range(channels):
            plane = fit_picture(Image.fromarray(x[i, ..., c].astype(np.float32)), size, fit, background)
            result[i, ..., c] = _to_dtype(np.asarray(plane), x.dtype)
    return result


def _to_dtype(values: Array, dtype: np.dtype[Any]) -> Array:
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)
