"""Data sets of the Hugging Face hub: hf:NAME, or hf:NAME:SPLIT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unstir.data.cache import Cache, key_of
from unstir.data.captions import TEXT_KEYS
from unstir.data.config import DataConfig
from unstir.data.contents import Contents, Progress
from unstir.data.folder import describe, from_cache, picture_options
from unstir.data.pictures import pack
from unstir.data.report import some
from unstir.errors import UserError

VERSION = 1  # of what is cached


def read_hub(name: str, config: DataConfig, progress: Progress | None = None) -> Contents:
    """Decodes the pictures of a data set of the hub, or of a folder in its format, into the cache, or finds them there.

    The picture column is the first of type Image, the classes the first of type ClassLabel, the captions a column text
    or caption. The split is the one in the name, else the config's; where that says train and there is none, the first.

    Raises:
        UserError: the extra is missing, the data set cannot be had, it has no such split, or it holds no pictures.
    """
    try:
        import datasets
    except ImportError:
        raise UserError('hf: sources need an extra: pip install "unstir[hub]"') from None
    table = _load(datasets, name, config.split)
    image = next((column for column, kind in table.features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise UserError(f"hf:{name} has no column of pictures (columns: {some(table.features, 8)})")
    label = next((column for column, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)), None)
    caption = next((column for column in TEXT_KEYS if column in table.features), None)
    options = picture_options(config)
    key = key_of("hub", VERSION, options, table._fingerprint)  # the library's own hash of the content
    raw = table.cast_column(image, datasets.Image(decode=False))

    def pictures() -> Iterator[tuple[str, bytes | Path]]:
        for i, row in enumerate(raw.select_columns([image])):
            found = row[image] or {}
            yield str(i), found.get("bytes") or (Path(found["path"]) if found.get("path") else b"")

    def write(building: Path) -> dict[str, Any]:
        packed = pack(pictures, building / "x.npy", config, progress)
        if len(packed.broken) > len(packed.names) or not packed.names:
            raise UserError(f"hf:{name}: only {len(packed.names)} of its pictures can be read")
        report = describe(packed, config)
        labels = captions = names = None
        if label is not None:
            names = list(table.features[label].names)
            numbers = raw[label]
            labels = [names[numbers[i]] if numbers[i] is not None and numbers[i] >= 0 else "" for i in packed.kept]
            report.classes = dict(Counter(text for text in labels if text))
        if caption is not None:
            texts = raw[caption]
            captions = [str(texts[i] or "") for i in packed.kept]
        described = {"names": packed.names, "labels": labels, "captions": captions, "report": vars(report)}
        return described | {"class_names": names}

    x, meta = Cache(config.cache_folder()).find_or_build(key, write)
    return from_cache(name.split("/")[-1].split(":")[0], x, meta, config, key)


def _load(datasets: Any, name: str, wanted: str) -> Any:
    path, _, split = name.partition(":")
    if split and wanted not in (DataConfig.split, split):
        raise UserError(f"hf:{name} names the split {split!r}, and --data.split another, {wanted!r}; leave one out")
    try:
        loaded = datasets.load_dataset(path)
    except Exception as error:  # the library raises its own, the network's and the parsers' errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot load hf:{path}: {reason}") from None
    split = split or (wanted if wanted in loaded or wanted != DataConfig.split else next(iter(loaded)))
    if split not in loaded:
        raise UserError(f"hf:{path} has no split {split!r} (splits: {', '.join(loaded)})")
    return loaded[split]
