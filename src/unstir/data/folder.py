"""A folder of pictures: any kind, any size, nested; classes from its sub-folders, captions from files beside the
pictures."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from unstir.data.cache import TAG, Cache, digest, key_of
from unstir.data.captions import is_side_car, read_side_cars, stems_of
from unstir.data.config import DataConfig
from unstir.data.contents import Array, Column, Contents, Progress, class_column
from unstir.data.pictures import Packed, pack
from unstir.data.report import Report, some
from unstir.data.resize import as_size, colour
from unstir.data.spec import Condition
from unstir.errors import UserError

VERSION = 1  # of what is cached: a change in decoding or in the description is a new number
SPLITS = {"train", "training", "test", "val", "valid", "validation", "eval"}
PICTURE_SUFFIXES = frozenset(
    (
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".gif",
        ".bmp",
        ".dib",
        ".webp",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".heif",
    )
    + (
        ".jp2",
        ".j2k",
        ".jxl",
        ".ico",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".psd",
        ".svg",
        ".dds",
        ".qoi",
        ".exr",
        ".hdr",
    )
)
CHANNEL_NAMES = {1: ("gray",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}


class File(NamedTuple):
    """A file below the folder: its relative name with slashes, and what changes when it does."""

    name: str
    size: int
    changed: int


def read_folder(folder: Path, config: DataConfig, progress: Progress | None = None) -> Contents:
    """Decodes the pictures, or finds them in the cache.

    The cache knows a folder twice over: by names, sizes and times (quick: no file is opened), and by names and contents
    (so a folder that was copied or touched is not decoded again).

    Raises:
        UserError: no pictures, more than half of them broken, or captions that cannot be read.
    """
    options = picture_options(config)
    files = scan(folder)
    cache = Cache(config.cache_folder())
    quick = key_of("folder", VERSION, options, files)
    key = cache.alias(quick)
    digests = None
    if key is None:
        digests = _digests(folder, files)
        key = key_of("folder", VERSION, options, sorted(digests.items()))

    def write(building: Path) -> dict[str, Any]:
        return _build(folder, files, digests or _digests(folder, files), building, config, progress)

    x, meta = cache.find_or_build(key, write)
    if cache.alias(quick) != key:
        cache.set_alias(quick, key)
    return from_cache(folder.resolve().name, x, meta, config, key)


def picture_options(config: DataConfig) -> list[Any]:
    """The options that shape decoded pictures, checked: they are part of the cache's key.

    Raises:
        UserError: a size or colour that is none, or a kind that pictures are not.
    """
    if config.kind not in ("auto", "image"):
        raise UserError(f"--data.kind {config.kind}: {config.source} holds pictures")
    return [as_size(config.size), config.channels, colour(config.background), config.fit]


def from_cache(name: str, x: Array, meta: dict[str, Any], config: DataConfig, key: str) -> Contents:
    """A cache's entry -> Contents."""
    columns: dict[str, Column] = {}
    if meta["labels"] is not None:
        columns["label"] = class_column(meta["labels"], meta.get("class_names"))
    if meta["captions"] is not None:
        columns["text"] = Column(Condition("text", 0), meta["captions"])
    report = Report(**(meta["report"] | {"source": config.source}))
    return Contents(name, x, "image", key, report, True, True, CHANNEL_NAMES[x.shape[-1]], columns)


def scan(folder: Path) -> list[File]:
    """All regular files below the folder, sorted; not hidden ones, not what lies in a cache. Links are followed, once
    each."""
    files: list[File] = []
    seen: set[tuple[int, int]] = set()
    pending = [("", folder)]
    while pending:
        prefix, here = pending.pop()
        try:
            status = here.stat()
            entries = list(os.scandir(here))
        except OSError as error:
            raise UserError(f"cannot read the folder {here}: {error.strerror}") from None
        if (status.st_dev, status.st_ino) in seen or any(entry.name == TAG for entry in entries):
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", Path(entry.path)))
            elif entry.is_file():
                stat = entry.stat()
                files.append(File(prefix + entry.name, stat.st_size, stat.st_mtime_ns))
    return sorted(files)


def _digests(folder: Path, files: list[File]) -> dict[str, str]:
    def one(file: File) -> str:
        try:
            return digest(folder / file.name)
        except OSError:
            return f"unreadable {file.size}"

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip((file.name for file in files), pool.map(one, files), strict=True))


def _build(
    folder: Path,
    files: list[File],
    digests: dict[str, str],
    building: Path,
    config: DataConfig,
    progress: Progress | None,
) -> dict[str, Any]:
    """Decodes into ``building``/x.npy and describes it."""
    names = [file.name for file in files]
    stems = stems_of(names)
    candidates = [name for name in names if not is_side_car(name, stems)]
    packed = pack(lambda: ((name, folder / name) for name in candidates), building / "x.npy", config, progress)
    others = sorted(name for name in packed.foreign if PurePosixPath(name).suffix.lower() not in PICTURE_SUFFIXES)
    for name in others:
        del packed.broken[name]
    _refuse(folder, packed, names)
    side_cars = read_side_cars(folder, names, packed.names, packed.broken)
    report = describe(packed, config)
    labels, note = folder_classes(packed.names)
    report.notes += [note] if note else []
    if labels is None and side_cars.labels:
        labels = [side_cars.labels.get(name, "") for name in packed.names]
    report.classes = dict(Counter(labels or []))
    report.classes.pop("", None)
    report.notes += side_cars.notes
    if others:
        report.notes.append(f"{len(others)} other files are ignored: {some(others)}")
    groups: dict[str, list[str]] = {}
    for name in packed.names:
        groups.setdefault(digests[name], []).append(name)
    report.duplicates = [group for group in groups.values() if len(group) > 1]
    captions = [side_cars.captions.get(name, "") for name in packed.names] if side_cars.captions else None
    if captions:
        report.facts["captions"] = f"{sum(map(bool, captions)):,}"
    return {"names": packed.names, "labels": labels, "captions": captions, "report": vars(report)}


def _refuse(folder: Path, packed: Packed, names: list[str]) -> None:
    broken = [f"{name} ({reason})" for name, reason in packed.broken.items()]
    if len(broken) > len(packed.names):
        raise UserError(
            f"{folder}: {len(broken)} of {len(broken) + len(packed.names)} pictures are broken: {some(broken)}"
        )
    if packed.names:
        return
    if not names:
        raise UserError(f"{folder} is empty; put pictures there, in sub-folders by class if you have classes")
    for suffix in (".tar", ".npz", ".npy", ".csv"):
        match = next((name for name in names if name.lower().endswith(suffix)), None)
        if match:
            what = "*.tar" if suffix == ".tar" else match
            raise UserError(f"{folder} holds no pictures; for its {suffix} files give --data {folder / what}")
    raise UserError(f"{folder} holds no pictures among its {len(names)} files: {some(names)}")


def describe(packed: Packed, config: DataConfig) -> Report:
    """What is known of any pile of pictures."""
    report = Report(source=config.source, count=len(packed.names), broken=dict(sorted(packed.broken.items())))
    sizes, kinds = packed.sizes, packed.modes
    (height, width), times = sizes.most_common(1)[0]
    if len(sizes) == 1:
        report.facts["size"] = f"{height} x {width} (height x width)"
    else:
        short = sorted(min(size) for size in sizes.elements())
        report.facts["sizes"] = (
            f"{len(sizes)} different; short side {short[0]} to {short[-1]}, median {short[len(short) // 2]}; "
            f"most often {height} x {width} ({times:,})"
        )
    report.facts["modes"] = ", ".join(f"{mode} {count:,}" for mode, count in kinds.most_common())
    report.facts["used as"] = f"{packed.size[0]} x {packed.size[1]}, {'/'.join(CHANNEL_NAMES[packed.channels])}"
    if config.size is None and (len(sizes) > 1 or packed.size != (height, width)):
        report.notes.append(f"pictures are resized to {packed.size[0]} x {packed.size[1]} (--data.size H W chooses)")
    return report


def folder_classes(names: list[str]) -> tuple[list[str] | None, str | None]:
    """(class of each picture or None, what to say): the first level of sub-folders where there are several and all
    pictures lie in one; a single folder above that level is passed through."""
    parts = [PurePosixPath(name).parts[:-1] for name in names]
    level = 0
    while all(len(p) > level + 1 for p in parts) and len({p[level] for p in parts}) == 1:
        level += 1
    inside = [p for p in parts if len(p) > level]
    folders = {p[level] for p in inside}
    if len(folders) < 2:
        return None, None
    if len(inside) < len(parts):
        return (
            None,
            f"{len(parts) - len(inside)} pictures lie beside the sub-folders, so these are not taken for classes",
        )
    if {name.lower() for name in folders} <= SPLITS:
        return (
            None,
            f"the sub-folders {some(sorted(folders))} look like splits, not classes: give one of them as the source",
        )
    return [p[level] for p in parts], None
