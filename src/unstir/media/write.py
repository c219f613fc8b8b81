"""Samples -> files, by the file's extension."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unstir.data.spec import DataSpec
from unstir.errors import UserError, did_you_mean
from unstir.media.animation import trajectory_frames, write_animation
from unstir.media.files import cannot_write, check_writable, replacing
from unstir.media.grid import as_pictures, flatten
from unstir.media.render import as_bytes, axes_of, class_names, render

Array = np.ndarray[Any, Any]
Labels = Sequence[int] | Sequence[str] | npt.NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """What is to be written.

    Args:
        x: (N, ...) in the data's own units and axis order.
        spec: what x is.
        labels: class numbers or names, one a sample, or None.
        trajectory: states like x, the first the noisiest, or None.
        captions: one a sample, or None.
    """

    x: Array
    spec: DataSpec
    labels: Labels | None = None
    trajectory: Sequence[Array] | None = None
    captions: Sequence[str] | None = None

    @property
    def names(self) -> Labels | None:
        """What to call each sample: its label, else its caption."""
        return self.labels if self.labels is not None else self.captions


def write(
    x: Array,
    path: str | Path,
    spec: DataSpec,
    *,
    labels: Labels | None = None,
    trajectory: Sequence[Array] | None = None,
    captions: Sequence[str] | None = None,
) -> list[Path]:
    """Writes samples in the form that the file's extension names.

    ========================  ======================================================================================
    .png .jpg .webp           one picture of them all: ``render``; a single picture is written as it is, pixel for pixel
    .gif                      (and .webp with a trajectory) how they came about, of at most 25 pictures, 9 volumes, 16 signals, 2,000 points
    .npz                      ``arr_0`` in the data's own units and dtype, pictures (N, H, W, C); ``label`` and ``classes``
                              where labels are given; ``text`` where captions are
    .npy                      the same array, bare
    .csv                      points: a row each; signals: a row each, all numbers in the array's own order
    no extension, or a folder one file a sample: .png for pictures, .csv for points and signals, .npy for volumes, named
                              by number and class (000000_flags.png) or caption, and captions in metadata.jsonl as well, so that the
                              folder can be trained on and judged
    ========================  ======================================================================================

    Each file is written under a temporary name and renamed, so it is whole or not there. Missing folders are made.

    Args:
        x: (N, ...) as ``spec.to_data`` returns it, N at least 1.
        path: where to.
        labels: class numbers (-1: not known) or names, one a sample.
        trajectory: states in the form of x, from noise to sample; the animation ends with x in any case.
        captions: what was asked for, one a sample, "" where nothing was; pictures are named by them where there are no labels.

    Returns:
        The files written.

    Raises:
        UserError: an unknown extension, a kind of data that it cannot hold, a place that cannot be written to, no samples,
            or a folder that holds numbered samples already.
    """
    path = Path(path)
    check_path(path, spec)
    if len(x) == 0:
        raise UserError(f"there are no samples to write to {path}; ask for at least one with -n")
    for what, given in (("labels", labels), ("captions", captions)):
        if given is not None and len(given) != len(x):
            raise ValueError(f"{len(given)} {what} for {len(x)} samples")
    samples = Samples(np.asarray(x), spec, labels, trajectory, captions)
    return (_folder if _is_folder(path) else WRITERS[path.suffix.lower()])(samples, path)


def check_path(path: str | Path, spec: DataSpec) -> None:
    """Everything about a place to write to that can be known before there are samples: call it before a long computation.

    Raises:
        UserError: as in ``write``.
    """
    path = Path(path)
    if _is_folder(path):
        check_writable(path)
        old = sorted(p.name for p in path.glob("*") if _NUMBERED.fullmatch(p.name)) if path.is_dir() else []
        if old:
            raise UserError(
                f"{path} already holds samples ({old[0]} and {len(old) - 1} more); choose another folder or remove them"
            )
        return
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise UserError(
            f"no way to write {path.suffix} files ({path}): {did_you_mean(suffix, WRITERS)}; or name a folder"
        )
    if suffix == ".csv" and spec.kind not in ("points", "signal"):
        raise UserError(f"a .csv file holds points or signals, and these are {spec.kind}s ({path}); use .npz or .npy")
    check_writable(path.parent)


def data_array(x: Array, spec: DataSpec) -> Array:
    """What .npz and .npy hold: x itself, but pictures always (N, H, W, C)."""
    return np.ascontiguousarray(np.moveaxis(axes_of(x, spec), 1, -1)) if spec.kind == "image" else x


_NUMBERED = re.compile(r"\d{6,}(_.*)?\.(png|csv|npy)")


def _is_folder(path: Path) -> bool:
    return path.is_dir() or not path.suffix


def _still(samples: Samples, path: Path) -> list[Path]:
    if samples.spec.kind == "image" and len(samples.x) == 1:
        picture = Image.fromarray(_file_picture(samples.x, samples.spec)[0])
    else:
        picture = render(samples.x, samples.spec, samples.names)
    kind, options = STILL[path.suffix.lower()]
    with replacing(path) as file:
        (flatten(picture) if kind == "JPEG" else picture).save(file, format=kind, **options)
    return [path]


STILL: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"optimize": True}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}


def _file_picture(x: Array, spec: DataSpec) -> npt.NDArray[np.uint8]:
    """(N, H, W), (N, H, W, 3) or (N, H, W, 4) uint8: grey stays grey."""
    pictures = as_bytes(x, spec)
    return pictures[..., 0] if pictures.shape[-1] == 1 else as_pictures(pictures)


def _moving(samples: Samples, path: Path) -> list[Path]:
    spec, most = samples.spec, MOST_MOVING[samples.spec.kind]
    x = samples.x[:most]
    labels = None if samples.names is None else samples.names[:most]
    states = [state[:most] for state in samples.trajectory or ()]
    if not states or not np.array_equal(states[-1], x):
        states.append(x)
    frames = trajectory_frames(states, lambda state: render(state, spec, labels, like=x, small=True))
    return [write_animation(frames, path)]


MOST_MOVING = {
    "image": 25,
    "volume": 9,
    "signal": 16,
    "points": 2000,
}  # noise does not compress: few samples, or a huge file


def _webp(samples: Samples, path: Path) -> list[Path]:
    return (_still if samples.trajectory is None else _moving)(samples, path)


def _npz(samples: Samples, path: Path) -> list[Path]:
    arrays = {"arr_0": data_array(samples.x, samples.spec)}
    if samples.labels is not None:
        arrays["label"] = np.asarray(samples.labels)
        condition = samples.spec.conditions.get("label")
        if condition is not None and condition.names and arrays["label"].dtype.kind in "iu":
            arrays["classes"] = np.array(condition.names)
    if samples.captions is not None:
        arrays["text"] = np.array(samples.captions)
    with replacing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return [path]


def _npy(samples: Samples, path: Path) -> list[Path]:
    with replacing(path) as file:
        np.save(file, data_array(samples.x, samples.spec), allow_pickle=False)
    return [path]


def _csv(samples: Samples, path: Path) -> list[Path]:
    header, rows = csv_header(samples.spec), samples.x.reshape(len(samples.x), -1).astype(np.str_).tolist()
    names = class_names(samples.labels, samples.spec)
    if names is not None:
        header, rows = [*header, "label"], [[*row, name] for row, name in zip(rows, names)]
    _write_csv(path, header, rows)
    return [path]


def csv_header(spec: DataSpec) -> list[str]:
    """Points: the coordinates' names, or x0, x1, ... Signals: t0, t1, ... or CHANNEL_t0, ... in the array's own order."""
    if spec.kind == "points":
        named = spec.channels if len(spec.channels) == spec.dimensions else ()
        return list(named) or [f"x{i}" for i in range(spec.dimensions)]
    channels, length = spec.shape
    if channels == 1:
        return [f"t{i}" for i in range(length)]
    names = _channel_names(spec)
    if spec.channels_last:
        return [f"{name}_t{i}" for i in range(length) for name in names]
    return [f"{name}_t{i}" for name in names for i in range(length)]


def _channel_names(spec: DataSpec) -> list[str]:
    return list(spec.channels) if len(spec.channels) == spec.shape[0] else [f"channel{c}" for c in range(spec.shape[0])]


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Numbers as short as reads back to the same value in their dtype."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _folder(samples: Samples, path: Path) -> list[Path]:
    """One file a sample."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    names = class_names(samples.names, samples.spec) or [""] * len(samples.x)
    written: list[Path] = []
    for i, name in enumerate(names):
        word = re.sub(r"[^\w.-]+", "-", name)[:LONGEST_NAME].strip("-.")
        stem = f"{i:06d}_{word}" if word else f"{i:06d}"
        written.append(ONE[samples.spec.kind](samples.x[i : i + 1], samples.spec, path / stem))
    if samples.captions is not None and samples.spec.kind == "image":  # the convention is for pictures
        lines = [{"file_name": file.name, "text": text} for file, text in zip(written, samples.captions) if text]
        with replacing(path / "metadata.jsonl") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    return written


LONGEST_NAME = 60  # letters of a class or caption in a file's name


def _one_picture(x: Array, spec: DataSpec, stem: Path) -> Path:
    path = stem.with_name(stem.name + ".png")
    with replacing(path) as file:
        Image.fromarray(_file_picture(x, spec)[0]).save(file, format="PNG")
    return path


def _one_table(x: Array, spec: DataSpec, stem: Path) -> Path:
    """Points: one row. Signals: a row for each time, a column for each channel."""
    path = stem.with_name(stem.name + ".csv")
    if spec.kind == "points":
        _write_csv(path, csv_header(spec), x.reshape(1, -1).astype(np.str_).tolist())
    else:
        _write_csv(path, _channel_names(spec), axes_of(x, spec)[0].T.astype(np.str_).tolist())
    return path


def _one_array(x: Array, spec: DataSpec, stem: Path) -> Path:
    path = stem.with_name(stem.name + ".npy")
    with replacing(path) as file:
        np.save(file, x[0], allow_pickle=False)
    return path


ONE: dict[str, Callable[[Array, DataSpec, Path], Path]] = {
    "image": _one_picture,
    "signal": _one_table,
    "points": _one_table,
    "volume": _one_array,
}

WRITERS: dict[str, Callable[[Samples, Path], list[Path]]] = {
    ".png": _still,
    ".jpg": _still,
    ".jpeg": _still,
    ".webp": _webp,
    ".gif": _moving,
    ".npz": _npz,
    ".npy": _npy,
    ".csv": _csv,
}
