"""Picture files of every kind that Pillow opens -> one uint8 array on disk."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median_low

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from unstir.data.arrays import gray
from unstir.data.config import DataConfig
from unstir.data.contents import Array, Progress
from unstir.data.resize import as_size, composite, fit_picture
from unstir.errors import UserError

Source = Path | bytes
Entries = Callable[[], Iterable[tuple[str, Source]]]  # called twice: sizes first, then the pixels

WINDOW = 256  # pictures in work at once, which bounds the memory that a stream of shards takes
LARGEST_OWN = 256  # pictures that all have one size keep it up to here
LARGEST_CHOSEN = 64


@dataclass
class Packed:
    """What became of the pictures.

    Args:
        kept: numbers of the entries that are in the array, in its order.
        names: of these.
        size: (H, W).
        channels: 1, 3 or 4.
        sizes, modes: how often each (height, width) and each Pillow mode was met.
        broken: name -> why it is left out.
        foreign: those of ``broken`` in which Pillow saw no picture at all.
    """

    kept: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    channels: int = 3
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)


def pack(entries: Entries, out: Path, config: DataConfig, progress: Progress | None = None) -> Packed:
    """Decodes all entries into ``out``, a .npy of (N, H, W, C) uint8; entries that cannot be decoded are left out and
    named.

    Raises:
        UserError: no room on the disk.
    """
    packed = Packed()
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's warnings about odd files; what matters ends as an error
        total = _look(entries, pool, packed)
        packed.size = as_size(config.size) or choose_size(packed.sizes)
        if not packed.sizes:
            return packed
        channels = 4 if config.channels == "rgba" else 3
        _ensure_room(out, total * packed.size[0] * packed.size[1] * channels)
        decoded = out.with_name("decoded.npy")
        x = np.lib.format.open_memmap(decoded, "w+", np.uint8, (total, *packed.size, channels))
        all_gray = _decode_all(entries, pool, x, packed, config, progress)
    packed.channels = 1 if config.channels == "gray" or (config.channels == "auto" and all_gray) else channels
    x.flush()
    if len(packed.kept) == total and packed.channels == channels:
        del x
        decoded.rename(out)
    else:
        _copy(x, out, packed)
        del x
        decoded.unlink()
    return packed


def _windows(entries: Iterable[tuple[str, Source]]) -> Iterator[list[tuple[str, Source]]]:
    iterator = iter(entries)
    while window := list(islice(iterator, WINDOW)):
        yield window


def _look(entries: Entries, pool: ThreadPoolExecutor, packed: Packed) -> int:
    """First pass, headers only: sizes, modes, and what is no picture. Returns the number of entries."""
    total = 0
    for window in _windows(entries()):
        total += len(window)
        for (name, _), seen in zip(window, pool.map(_header, (source for _, source in window)), strict=True):
            if isinstance(seen, str):
                packed.broken[name] = seen
                packed.foreign.add(name)
            elif seen is not None:
                packed.sizes[seen[0]] += 1
                packed.modes[seen[1]] += 1
    return total


def _open(source: Source) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _header(source: Source) -> tuple[tuple[int, int], str] | str | None:
    """((height, width) as it will stand, mode); why it is no picture; or None where decoding will tell."""
    try:
        with _open(source) as picture:
            # Pillow decodes a whole PNG to look for an orientation that may follow the pixels: not for a mere choice of size.
            known = picture.format != "PNG" or "exif" in picture.info
            turned = known and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return ((picture.width, picture.height) if turned else (picture.height, picture.width)), picture.mode
    except UnidentifiedImageError:
        return _why_foreign(source)
    except Exception:  # broken files make Pillow raise nearly anything; the second pass gives the reason
        return None


def _why_foreign(source: Source) -> str:
    if isinstance(source, bytes):
        start = source[:256]
    else:
        with source.open("rb") as file:
            start = file.read(256)
    if not start:
        return "empty file (0 bytes)"
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError:
        return "not a picture that Pillow can read"
    return "not a picture that Pillow can read" if "\0" in text else f"text, not a picture: {text[:24].strip()!r}"


def choose_size(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """The pictures' own size if all have the same, at most 256; else the square of their median short side, rounded to
    a multiple of 8, from 8 to 64."""
    if len(sizes) == 1:
        (height, width) = next(iter(sizes))
        if max(height, width) <= LARGEST_OWN:
            return height, width
    short = median_low([min(size) for size in sizes.elements()] or [LARGEST_CHOSEN])
    side = min(max(8 * round(short / 8), 8), LARGEST_CHOSEN)
    return side, side


def _ensure_room(out: Path, needed: int) -> None:
    # Running out in the middle of a memory map kills the process (SIGBUS) instead of raising.
    free = shutil.disk_usage(out.parent).free
    if 2 * needed > free:
        raise UserError(
            f"the decoded pictures need up to {2 * needed / 1e9:.1f} GB in {out.parent.parent}, and {free / 1e9:.1f} GB are free; "
            "choose a folder with --data.cache, or a smaller --data.size"
        )


def _decode_all(
    entries: Entries, pool: ThreadPoolExecutor, x: Array, packed: Packed, config: DataConfig, progress: Progress | None
) -> bool:
    """Second pass: fills x, row i from entry i. Returns whether every picture is grey."""

    def work(entry: tuple[int, tuple[str, Source]]) -> bool | str:
        row, (name, source) = entry
        if name in packed.foreign:
            return packed.broken[name]
        try:
            pixels = decode(source, packed.size, config)
        except Exception as error:  # see _header
            return _reason(error)
        x[row] = pixels
        red = pixels[..., 0]
        return bool((red == pixels[..., 1]).all() and (red == pixels[..., 2]).all())

    done, all_gray = 0, True
    for window in _windows(entries()):
        numbered = list(enumerate(window, start=done))
        for (row, (name, _)), result in zip(numbered, pool.map(work, numbered), strict=True):
            if isinstance(result, str):
                packed.broken[name] = result
            else:
                packed.kept.append(row)
                packed.names.append(name)
                all_gray = all_gray and result
        done += len(window)
        if progress is not None:
            progress(done, len(x))
    return all_gray


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than Pillow opens safely; scale it down first"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"truncated: {text}" if "truncated" in text or isinstance(error, EOFError) else text


def _copy(x: Array, out: Path, packed: Packed) -> None:
    """The good rows of x, with the final number of channels."""
    result = np.lib.format.open_memmap(out, "w+", np.uint8, (len(packed.kept), *packed.size, packed.channels))
    for start in range(0, len(packed.kept), WINDOW):
        rows = x[packed.kept[start : start + WINDOW]]
        # Of a grey picture luma is the grey itself (the weights add up to one), so one line serves both ways to one channel.
        result[start : start + WINDOW] = gray(rows) if packed.channels == 1 else rows
    result.flush()


def decode(source: Source, size: tuple[int, int] | None, config: DataConfig) -> npt.NDArray[np.uint8]:
    """One picture file -> (H, W, 3) uint8, or (H, W, 4) where the config asks for rgba: upright, 8 bits, on the
    background.

    The first frame of an animation; the orientation that a camera noted is applied; colour profiles are not.
    """
    with _open(source) as picture:
        if size is not None:
            # JPEG can skip detail that would be averaged away; it stays at least twice as large as what is asked for.
            picture.draft(None, (2 * max(size), 2 * max(size)))
        picture.load()
        with contextlib.suppress(Exception):  # damaged notes of the camera say nothing about the pixels
            ImageOps.exif_transpose(picture, in_place=True)
        upright = to_8_bits(picture)
    if config.channels == "rgba":
        upright = upright.convert("RGBA")
    elif upright.mode == "RGBA":
        upright = Image.fromarray(composite(np.asarray(upright), config.background))
    if size is not None:
        upright = fit_picture(upright, size, config.fit, config.background)
    return np.array(upright)


def to_8_bits(picture: Image.Image) -> Image.Image:
    """A picture of any mode -> RGB, or RGBA where it has transparency of any form.

    16-bit grey: v -> round(v 255 / 65535), so that 65535 is 255. 32-bit integers (mode I) are taken as 8-bit or 16-bit
    where all values fit, else scaled by their largest; floats (mode F) as [0, 1] or [0, 255] where all values fit, else
    from their lowest to their highest.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_scaled(np.asarray(picture), picture.mode)).convert("RGB")
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _scaled(values: Array, mode: str) -> npt.NDArray[np.uint8]:
    if mode.startswith("I;16"):
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("it holds numbers that are NaN or infinite")
    low, high = float(wide.min()), float(wide.max())
    limits = (255.0, 65535.0) if mode == "I" else (1.0, 255.0)
    if low < 0 or high > limits[1]:
        low = low if mode == "F" or low < 0 else 0.0
        return np.rint((wide - low) * (255 / (high - low or 1))).astype(np.uint8)
    return np.rint(wide * (255 / (limits[0] if high <= limits[0] else limits[1]))).astype(np.uint8)
