"""Conditions that are grids, from files: a map itself (--edges FILE), or a picture that all are computed of (--image FILE)."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstir.data import DataConfig, DataSpec
from unstir.data.arrays import gray
from unstir.data.spec import Condition
from unstir.editing.files import array_of, in_own_order, own_shape, pixels_of, plural, read_sample
from unstir.errors import UserError
from unstir.recipes import Recipe

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
Tell = Callable[[str], None]
"""Takes a line for the user; an empty one says nothing."""
ARRAYS = ("arr_0", "x")  # as ``unstir sample`` names samples in an .npz, and as data sets do


def quietly(note: str) -> None:
    """Tells nobody."""


def conditions_from_files(
    given: Mapping[str, Any], images: Sequence[str], recipe: Recipe, spec: DataSpec, tell: Tell = quietly
) -> dict[str, Any]:
    """Conditions as they stand on the command line, with the numbers in place of the names of files.

    Args:
        given: by name; a grid's value is a file, a folder of files, or a list of such.
        images: files or folders of samples like the data, of which the run computes its conditions; what is given by name goes first.
        recipe, spec: the run's.
        tell: is told what was done to pictures of another size than the data's.

    Raises:
        UserError: a file that cannot be read or holds something else.
    """
    derived: dict[str, Any] = {}
    if images:
        pictures = torch.cat([samples_from(Path(image), spec, recipe.data, tell) for image in images])
        derived = dict(recipe.derived.given(pictures, spec))
    grids = {name: c for name, c in spec.conditions.items() if c.kind == "grid" and name in given}
    read = {name: grids_from(given[name], name, condition, recipe, spec, tell) for name, condition in grids.items()}
    return {**derived, **given, **read}


def samples_from(path: Path, spec: DataSpec, config: DataConfig, tell: Tell = quietly) -> Tensor:
    """One sample like the data from a picture or a .npy, several from a folder of those or from an array: (k, *shape) in model units.

    Raises:
        UserError: nothing there, or something else.
    """
    arrays = _several(path, len(own_shape(spec)))
    if arrays is not None:
        return torch.cat([spec.to_model(in_own_order(array, spec, path)[None]) for array in arrays])
    read = [read_sample(file, spec, config) for file in files_of(path)]
    for _, note in read:
        tell(note)
    return torch.stack([sample for sample, _ in read])


def grids_from(
    value: Any, name: str, condition: Condition, recipe: Recipe, spec: DataSpec, tell: Tell = quietly
) -> Tensor:
    """A grid condition (k, *condition.shape) from pictures of it, or from arrays of the numbers that networks see; what is none of these
    (a tensor) is taken as it is.

    Raises:
        UserError: nothing there, or something else.
    """
    if not isinstance(value, str | list):
        return torch.as_tensor(value)
    paths = [Path(one) for one in ([value] if isinstance(value, str) else value)]
    return torch.cat([_grid(path, name, condition, recipe, spec, tell) for path in paths])


def _grid(path: Path, name: str, condition: Condition, recipe: Recipe, spec: DataSpec, tell: Tell) -> Tensor:
    arrays = _several(path, len(condition.shape))
    if arrays is not None:
        return torch.cat([_numbers(array, path, name, condition)[None] for array in arrays])
    return torch.cat([_picture(file, name, condition, recipe, spec, tell) for file in files_of(path)])


def _picture(path: Path, name: str, condition: Condition, recipe: Recipe, spec: DataSpec, tell: Tell) -> Tensor:
    if path.suffix.lower() == ".npy":
        return _numbers(array_of(path), path, name, condition)[None]
    channels, size = condition.shape[0], recipe.derived.picture_grid(name, spec)
    if spec.kind != "image" or spec.bounds != (-1.0, 1.0) or channels not in (1, 3, 4):
        raise UserError(
            f"{path}: this model's data are {plural(spec)}; give --{name} as a .npy of {list(condition.shape)} numbers"
        )
    config = dataclasses.replace(recipe.data, channels="rgba" if channels == 4 else "rgb")
    pixels, note = pixels_of(path, (size[0], size[1]), config)
    tell(note)
    pixels = gray(pixels) if channels == 1 else pixels
    x = torch.from_numpy(pixels).movedim(-1, 0).to(torch.float32, memory_format=torch.contiguous_format)
    return recipe.derived.of_picture(name, x[None] / 255, spec)


def _numbers(array: np.ndarray[Any, Any], path: Path, name: str, condition: Condition) -> Tensor:
    if array.shape != condition.shape:
        raise UserError(f"{path} has the shape {array.shape}; --{name} takes {condition.shape}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _several(path: Path, axes: int) -> list[np.ndarray[Any, Any]] | None:
    """The samples in an .npz, or in a .npy that has one axis more than a sample; None where the path is neither."""
    readers: dict[str, Callable[[Path], np.ndarray[Any, Any]]] = {".npy": array_of, ".npz": _archive}
    reader = readers.get(path.suffix.lower())
    if reader is None or path.is_dir():
        return None
    array = reader(path)
    if array.ndim == axes + 1 and not len(array):
        raise UserError(f"{path} holds no samples")
    return list(array) if array.ndim == axes + 1 else [array]


def _archive(path: Path) -> np.ndarray[Any, Any]:
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = next((key for key in (*ARRAYS, *archive.files) if key in archive.files), None)
            array = archive[name] if name is not None else None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if array is None or array.dtype.kind not in "biuf":
        raise UserError(f"{path} holds no array of numbers")
    return np.asarray(array)


def files_of(path: Path) -> list[Path]:
    """The picture files and .npy files of a folder in the order of their names; a file itself.

    Raises:
        UserError: a folder without any.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES | {".npy"})
    if not files:
        raise UserError(f"{path} holds no pictures")
    return files
