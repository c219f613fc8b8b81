"""Samples and masks from files, in the form that a model's data have."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unstir.data import DataConfig, DataSpec
from unstir.data.arrays import gray
from unstir.data.pictures import decode, to_8_bits
from unstir.data.resize import composite
from unstir.errors import UserError

THRESHOLD = 128  # of a mask's grey: what is lighter is to be filled
_HOW = {"crop": "scaled, its middle cut out", "pad": "scaled, with borders", "stretch": "stretched"}


def read_sample(path: Path, spec: DataSpec, config: DataConfig) -> tuple[Tensor, str]:
    """A picture file, or a .npy of one sample in the data's units -> ((*shape) in model units, what was done to it or "").

    A picture is read as the loader reads one: upright, scaled and cut to the data's size, transparency laid on the background unless
    the data have it, grey from colours by luma where the data are grey, grey in all three channels where they are not.

    Args:
        config: how the training data were read (fit, background).

    Raises:
        UserError: no such file, not a picture, an array of another shape, or a picture for data that are none.
    """
    if path.suffix.lower() == ".npy":
        return _sample_of_array(array_of(path), spec, path), ""
    if spec.kind != "image":
        raise UserError(f"{path}: this model's data are {plural(spec)}; give one as a .npy file in their units")
    if spec.bounds != (-1.0, 1.0) or spec.shape[0] not in (1, 3, 4):
        raise UserError(f"{path}: this model's data are no pictures of bytes; give one as a .npy file in their units")
    size = (spec.shape[1], spec.shape[2])
    pixels, note = pixels_of(path, size, dataclasses.replace(config, channels="rgba" if spec.shape[0] == 4 else "rgb"))
    pixels = gray(pixels) if spec.shape[0] == 1 else pixels
    x = torch.from_numpy(pixels).movedim(-1, 0).to(torch.float32, memory_format=torch.contiguous_format)
    return (x - 127.5) / 127.5, note  # as DataSpec.to_model does with bytes, to the bit


def read_mask(path: Path, spec: DataSpec, config: DataConfig) -> tuple[Tensor, str]:
    """A picture, white where to fill, or a .npy, not 0 where to fill -> (bool, broadcastable to (*shape); what was done to it).

    A picture is brought to the data's size in the same way as the sample, by nearest pixels, then cut at the middle of grey.
    Transparent pixels count as black. An array has the shape of a sample, or without its channels.

    Raises:
        UserError: as for ``read_sample``.
    """
    if path.suffix.lower() == ".npy":
        return _mask_of_array(array_of(path), spec, path), ""
    if spec.kind != "image":
        raise UserError(
            f"{path}: this model's data are {plural(spec)}; give the mask as a .npy file, not 0 where to fill"
        )
    size = (spec.shape[1], spec.shape[2])
    upright = to_8_bits(_upright(path))
    if upright.mode == "RGBA":
        upright = Image.fromarray(composite(np.asarray(upright), "black"))
    note = _note(path, (upright.height, upright.width), size, config)
    grey = np.array(fit_nearest(upright.convert("L"), size, config.fit))
    return torch.from_numpy(grey >= THRESHOLD).unsqueeze(0), note


def fit_nearest(mask: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """``data.resize.fit_picture`` for a mask (mode L): no pixel becomes a mean of others, and borders are black."""
    height, width = size
    ratios = width / mask.width, height / mask.height
    if (mask.height, mask.width) == size or fit == "stretch":
        return mask.resize((width, height), Image.Resampling.NEAREST)
    if fit == "pad":
        ratio = min(ratios)
        inner = max(1, round(mask.width * ratio)), max(1, round(mask.height * ratio))
        canvas = Image.new("L", (width, height))
        place = ((width - inner[0]) // 2, (height - inner[1]) // 2)
        canvas.paste(mask.resize(inner, Image.Resampling.NEAREST), place)
        return canvas
    kept = width / max(ratios), height / max(ratios)
    left, top = (mask.width - kept[0]) / 2, (mask.height - kept[1]) / 2
    box = (max(left, 0), max(top, 0), min(left + kept[0], mask.width), min(top + kept[1], mask.height))
    return mask.resize((width, height), Image.Resampling.NEAREST, box=box)


def pixels_of(path: Path, size: tuple[int, int], config: DataConfig) -> tuple[npt.NDArray[np.uint8], str]:
    """(H, W, 3 or 4), and what was done to it."""
    upright = _upright(path)
    return decode(path, size, config), _note(path, (upright.height, upright.width), size, config)


def _note(path: Path, own: tuple[int, int], size: tuple[int, int], config: DataConfig) -> str:
    if own == size:
        return ""
    return f"{path} is {own[1]} x {own[0]}, the data are {size[1]} x {size[0]}: {_HOW[config.fit]}"


def _upright(path: Path) -> Image.Image:
    """A picture as it is meant to be seen."""
    _there(path)
    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore")  # Pillow's about odd files; what matters is an error
            picture.load()
            with contextlib.suppress(Exception):  # damaged notes of the camera say nothing about the pixels
                return ImageOps.exif_transpose(picture)
            return picture.copy()
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture that can be read") from None
    except Exception as error:  # broken files make Pillow raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read {path}: {reason}") from None


def _there(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"there is no file {path}" if not path.exists() else f"{path} is a folder; name one file")


def array_of(path: Path) -> np.ndarray[Any, Any]:
    _there(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise UserError(f"{path} holds no array of numbers")
    return array


def own_shape(spec: DataSpec) -> tuple[int, ...]:
    """The shape of one sample in the data's own axis order."""
    channels, *space = spec.shape
    if not spec.channel_axis:
        return tuple(space)
    return (*space, channels) if spec.channels_last else spec.shape


def _sample_of_array(array: np.ndarray[Any, Any], spec: DataSpec, path: Path) -> Tensor:
    if not np.isfinite(array).all():
        raise UserError(f"{path} holds numbers that are NaN or infinite; what is to be filled may be 0")
    array = in_own_order(array, spec, path)
    return spec.to_model(array[None])[0]


def in_own_order(array: np.ndarray[Any, Any], spec: DataSpec, path: Path) -> np.ndarray[Any, Any]:
    """One sample as the data have it. Pictures may also come as ``unstir sample`` writes them, (H, W, C) or a batch of one."""
    wanted, written = own_shape(spec), (*spec.shape[1:], spec.shape[0])
    for shape in (array.shape, array.shape[1:] if array.shape[:1] == (1,) else array.shape):
        if shape == wanted:
            return array.reshape(shape)
        if spec.kind == "image" and shape == written:
            moved = np.moveaxis(array.reshape(shape), -1, 0)
            return moved if spec.channel_axis else moved[0]
    raise UserError(f"{path} has the shape {array.shape}; one sample of this model's data has {wanted}")


def _mask_of_array(array: np.ndarray[Any, Any], spec: DataSpec, path: Path) -> Tensor:
    fill = array != 0
    if spec.kind != "points" and fill.shape == spec.shape[1:]:
        return torch.from_numpy(fill).unsqueeze(0)
    own = in_own_order(fill, spec, path)
    if not spec.channel_axis:
        own = own[None]
    elif spec.channels_last:
        own = np.moveaxis(own, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(own))


def plural(spec: DataSpec) -> str:
    return spec.kind if spec.kind == "points" else f"{spec.kind}s"
