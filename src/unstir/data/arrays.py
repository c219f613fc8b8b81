"""Arrays: .npy and .npz files, and what the axes of an array mean."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from unstir.data.cache import digest
from unstir.data.config import DataConfig
from unstir.data.contents import Array, Column, Contents, class_column
from unstir.data.measure import channels_first
from unstir.data.report import Report
from unstir.data.resize import as_size, composite, fit_array
from unstir.data.spec import RANK, Condition, Kind
from unstir.errors import UserError

DATA_KEYS = ("x", "x_0", "X", "images", "data", "arr_0", "samples")
CLASS_KEYS = ("y", "label", "labels", "c", "context")
NAME_KEYS = ("classes", "names", "class_names", "label_names", "categories", "category")
CLASS_TEXT_KEYS = (*CLASS_KEYS, "category", "class")  # strings, one for each sample
CAPTION_KEYS = ("text", "caption", "captions", "name")
CLEARLY = {3: 8, 4: 4, 5: 4}  # by ndim: a channel axis of more than 4 is this many times smaller than every other


def read_npy(path: Path, config: DataConfig) -> Contents:
    """A .npy file, mapped into memory rather than read."""
    try:
        x = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {_plain(error)}") from None
    return from_array(path.stem, x, {}, config, digest(path))


def read_npz(path: Path, config: DataConfig) -> Contents:
    """A .npz file: data under x, images, data, arr_0 (else its largest array); classes under y, label, labels."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {_plain(error)}") from None
    key = next((key for key in DATA_KEYS if key in arrays), None)
    note = None
    if key is None:
        numeric = {k: a for k, a in arrays.items() if a.dtype.kind in "buif" and a.ndim > 0 and k not in CLASS_KEYS}
        if not numeric:
            raise UserError(f"{path} holds no array of numbers (keys: {', '.join(arrays)}); name the data 'x'")
        key = max(numeric, key=lambda k: numeric[k].size)
        note = f"the data is taken from key {key!r}, its largest array; call it 'x' to be sure"
    x = arrays.pop(key)
    contents = from_array(path.stem, x, columns(arrays, len(x), str(path)) if x.ndim else {}, config, digest(path))
    if note:
        contents.report.notes.append(note)
    return contents


def _plain(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        "it holds Python objects, which are never unpickled; save plain numbers"
        if "allow_pickle" in text or "Python objects" in text
        else text
    )


def columns(arrays: Mapping[str, Array], n: int, where: str) -> dict[str, Column]:
    """The conditions among the arrays that lie beside the data.

    Integers under y, label, labels, c or context are classes ("label"), named by an array classes, names, ... where
    there is one; -1 is "not known". Floats there are a vector, under their own key. Strings, one a sample, under these
    keys or category, are classes if no integers are; under text, caption or name they are captions.

    Raises:
        UserError: labels of another length than the data, or more classes than names.
    """
    found: dict[str, Column] = {}
    for key in CLASS_KEYS:
        if key not in arrays or arrays[key].dtype.kind not in "buif":
            continue
        values = arrays[key].squeeze()
        if values.ndim == 0 and n == 1:
            values = values[None]
        if len(arrays[key]) != n if arrays[key].ndim else True:
            raise UserError(f"{where}: {key} has shape {arrays[key].shape}, but there are {n} samples")
        if values.dtype.kind in "bui" and values.ndim == 1:
            found.setdefault("label", _classes(values, arrays, key, where))
        elif values.dtype.kind == "f" and values.ndim <= 2:
            vectors = values.reshape(n, -1).astype(np.float32)
            found[key] = Column(Condition("vector", vectors.shape[1]), vectors)
    for key in CLASS_TEXT_KEYS:
        if "label" not in found and key in arrays and arrays[key].dtype.kind == "U" and arrays[key].shape == (n,):
            found["label"] = class_column(arrays[key])
    for key in CAPTION_KEYS:
        if "text" not in found and key in arrays and arrays[key].dtype.kind == "U" and arrays[key].shape == (n,):
            found["text"] = Column(Condition("text", 0), arrays[key].tolist())
    return found


def _classes(values: Array, arrays: Mapping[str, Array], key: str, where: str) -> Column:
    values = values.astype(np.int64)
    known = np.unique(values[values != -1])
    names = _class_names(arrays, len(values))
    if names:
        if len(known) and (known[0] < 0 or known[-1] >= len(names)):
            raise UserError(
                f"{where}: {key} goes from {known[0]} to {known[-1]}, but there are {len(names)} class names"
            )
        return Column(Condition("class", len(names), names), values)
    if len(known) and (
        known[0] < 0 or known[-1] >= 2 * len(known) + 8
    ):  # 1, 7, 100: renumber, keep the numbers as names
        numbered = np.where(values == -1, -1, np.searchsorted(known, values))
        return Column(Condition("class", len(known), tuple(map(str, known.tolist()))), numbered)
    return Column(Condition("class", int(known[-1]) + 1 if len(known) else 1), values)


def _class_names(arrays: Mapping[str, Array], n: int) -> tuple[str, ...]:
    """Different strings, and not one for each sample: those would be the samples' own names."""
    for key in NAME_KEYS:
        names = (
            arrays[key].tolist() if key in arrays and arrays[key].dtype.kind == "U" and arrays[key].ndim == 1 else []
        )
        if names and len(set(names)) == len(names) and (len(names) != n or key in ("classes", "class_names")):
            return tuple(names)
    return ()


def from_array(name: str, x: Array, found: dict[str, Column], config: DataConfig, content: str) -> Contents:
    """An array of numbers (N, ...) -> Contents: what its axes mean, channels and size as the config asks.

    Raises:
        UserError: a dtype or a shape that no data has.
    """
    if x.dtype.kind not in "buif":
        raise UserError(f"{config.source} holds {x.dtype}, not plain numbers; save integers or floats")
    if x.ndim == 0 or 0 in x.shape:
        raise UserError(f"{config.source} holds an empty array, of shape {x.shape}; the first axis is the samples")
    if x.dtype.kind == "b":
        x = x.astype(np.uint8)
    if not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))  # torch reads only the machine's own byte order
    kind, channels_last, channel_axis = axes(x, config.kind)
    if kind == "points" and x.ndim > 2:
        x = x.reshape(len(x), -1)
    report = Report(source=config.source or name, count=len(x))
    if x.ndim == 1 and kind == "points":
        report.notes.append(
            "each number is a sample of its own; cut a recording into windows, (N, length), to learn its shape"
        )
    contents = Contents(name, x, kind, content, report, channels_last, channel_axis, columns=found)
    if kind == "image":
        return _picture_options(contents, config)
    if config.size is not None:
        raise UserError(f"--data.size: only pictures are resized, and {report.source} holds {kind}")
    return contents


def axes(x: Array, kind: str = "auto") -> tuple[Kind, bool, bool]:
    """What the axes of (N, ...) mean: (kind, channels_last, channel_axis).

    The channel axis is the first or the last after N, if one is at most 4 or clearly smaller than the others (CLEARLY).
    Without one: (N,) and (N, up to 32) are points, (N, L) signals, (N, H, W) pictures and (N, D, H, W) volumes of one
    channel.
    """
    rank = x.ndim - 1
    if kind == "points":
        return "points", False, rank > 0
    if kind != "auto":
        wanted: Kind = kind  # type: ignore[assignment]  # the config's Literal, less "auto"
        if rank == RANK[wanted] + 1:
            return wanted, x.shape[-1] <= x.shape[1], True
        if rank == RANK[wanted]:
            return wanted, False, False
        raise UserError(
            f"an array of shape {x.shape} cannot hold {wanted}s: that takes {RANK[wanted] + 1} or {RANK[wanted] + 2} axes"
        )
    if rank > 4:
        raise UserError(f"an array of shape {x.shape} has too many axes: (N, C, D, H, W) is the most")
    if rank < 2:
        points = rank == 0 or x.shape[1] <= 32
        return ("points" if points else "signal"), False, points and rank > 0
    side = _channel_side(x)
    if side is None:
        return _KINDS[min(rank, 3)], (rank == 4 and x.shape[-1] <= x.shape[1]), rank == 4
    return _KINDS[rank - 1], side == -1, True


_KINDS: dict[int, Kind] = {0: "points", 1: "signal", 2: "image", 3: "volume"}  # by number of grid axes


def _channel_side(x: Array) -> int | None:
    """-1 or 1, the axis of the channels; None where no axis is small."""
    for limit in (4, None):
        for side in (-1, 1):
            others = x.shape[1:-1] if side == -1 else x.shape[2:]
            size = x.shape[side]
            if limit and size <= limit:
                return side
            plain_picture = x.ndim == 3 and x.dtype == np.uint8
            if not limit and not plain_picture and size * CLEARLY[x.ndim] <= min(others):
                return side
    return None


def _picture_options(contents: Contents, config: DataConfig) -> Contents:
    """Size, channels and background for an array of pictures; an array that needs none of them stays as it is."""
    x = np.moveaxis(channels_first(contents.x, contents.channels_last, contents.channel_axis), 1, -1)  # (N, H, W, C)
    original, size = x, as_size(config.size)
    notes = contents.report.notes
    if size is not None:
        x = fit_array(x, size, config.fit, config.background)
    x = _picture_channels(x, config, notes)
    changed = x is not original
    if not changed and contents.channel_axis:
        layout = contents
    elif not changed:  # (N, H, W): pictures are always written (N, H, W, C), so the axis may as well be there
        layout = replace(contents, x=contents.x[..., None], channels_last=True, channel_axis=True)
    else:
        layout = replace(contents, x=x, channels_last=True, channel_axis=True)
    names = {1: ("gray",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}
    return replace(layout, channels=names.get(x.shape[-1], ()) if x.dtype == np.uint8 else ())


def _picture_channels(x: Array, config: DataConfig, notes: list[str]) -> Array:
    """(N, H, W, C) -> (N, H, W, C'). Floats and pictures of other than 1, 3 or 4 channels can only stay as they are."""
    channels, wanted = x.shape[-1], config.channels
    if x.dtype != np.uint8 or channels not in (1, 3, 4):
        if wanted != "auto":
            raise UserError(
                f"--data.channels {wanted}: only for uint8 pictures of 1, 3 or 4 channels, not {channels} of {x.dtype}"
            )
        return x
    if channels == 4 and wanted != "rgba":
        if wanted == "auto":
            notes.append(f"transparency is laid on {config.background} (--data.channels rgba keeps it)")
        x = composite(x, config.background)
    if wanted == "rgb" and x.shape[-1] == 1:
        x = np.repeat(x, 3, axis=-1)
    if wanted == "rgba" and channels != 4:
        rgb = np.repeat(x, 3, axis=-1) if channels == 1 else x
        x = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)
    if wanted == "gray" and x.shape[-1] == 3:
        x = gray(x)
    return x


def gray(rgb: Array) -> Array:
    """(..., 3) uint8 -> (..., 1): luma of ITU-R BT.601 with the 16-bit weights of Pillow's convert("L"), rounded
    alike."""
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    return np.asarray(((rgb.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., None])
