"""Shards of the webdataset kind: .tar files in which a sample is the files of one stem (a.png, a.cls, a.txt,
a.json)."""

from __future__ import annotations

import glob
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unstir.data.cache import Cache, digest, key_of
from unstir.data.config import DataConfig
from unstir.data.contents import Contents, Progress
from unstir.data.folder import describe, from_cache, picture_options
from unstir.data.pictures import pack
from unstir.data.report import some
from unstir.errors import UserError

VERSION = 1  # of what is cached
PICTURES = ("png", "jpg", "jpeg", "webp", "ppm", "pgm", "bmp", "tif", "tiff", "gif", "avif", "img")


def read_shards(pattern: str, config: DataConfig, progress: Progress | None = None) -> Contents:
    """Decodes the pictures of all shards into the cache, or finds them there.

    Classes from .cls files (a number or a name) or "label" in .json; captions from .txt, or "text" or "caption" in
    .json.

    Args:
        pattern: one file, a glob (train-*.tar) or a range (shard-{000..010}.tar); addresses (https://...) are streamed,
            twice.

    Raises:
        UserError: the extra is missing, there are no such files, or one is damaged.
    """
    try:
        import webdataset
    except ImportError:
        raise UserError('shards need an extra: pip install "unstir[webdataset]"') from None
    urls = expand(pattern)
    options = picture_options(config)
    cache = Cache(config.cache_folder())
    stats = [
        (url, Path(url).stat().st_size, Path(url).stat().st_mtime_ns) if Path(url).is_file() else url for url in urls
    ]
    quick = key_of("shards", VERSION, options, stats)
    key = cache.alias(quick)
    if key is None:
        contents = [[Path(url).name, digest(Path(url))] if Path(url).is_file() else url for url in urls]
        key = key_of("shards", VERSION, options, contents)

    def write(building: Path) -> dict[str, Any]:
        stream = _Stream(webdataset, urls)
        packed = pack(stream.pictures, building / "x.npy", config, progress)
        if len(packed.broken) > len(packed.names) or not packed.names:
            broken = some(f"{name} ({reason})" for name, reason in packed.broken.items())
            raise UserError(
                f"{pattern}: {len(packed.names)} pictures can be read" + (f"; broken: {broken}" if broken else "")
            )
        report = describe(packed, config)
        labels = [stream.labels.get(name, "") for name in packed.names] if stream.labels else None
        captions = [stream.captions.get(name, "") for name in packed.names] if stream.captions else None
        report.classes = dict(Counter(label for label in labels or [] if label))
        report.facts["shards"] = str(len(urls))
        cut = [url for url in urls if _cut(url)]
        report.notes += [f"cut short, what follows is missing: {some(cut)}"] if cut else []
        return {"names": packed.names, "labels": labels, "captions": captions, "report": vars(report)}

    x, meta = cache.find_or_build(key, write)
    if cache.alias(quick) != key:
        cache.set_alias(quick, key)
    return from_cache(Path(pattern).name.split(".")[0].rstrip("-{*0"), x, meta, config, key)


def expand(pattern: str) -> list[str]:
    """The shards that a pattern names, in order. A UserError if one is not there, or no .tar file."""
    import braceexpand  # comes with webdataset

    urls: list[str] = []
    for part in braceexpand.braceexpand(pattern):
        matches = sorted(glob.glob(part)) if glob.has_magic(part) and "://" not in part else [part]
        urls += [match if "://" in match else str(Path(match).expanduser()) for match in matches]
    missing = [url for url in urls if "://" not in url and not Path(url).is_file()]
    damaged = [url for url in urls if "://" not in url and url not in missing and not tarfile.is_tarfile(url)]
    if damaged:
        raise UserError(f"not .tar files, or damaged: {some(damaged)}")
    if missing or not urls:
        raise UserError(f"no such shards: {some(missing) if missing else pattern}")
    return urls


def _cut(url: str) -> bool:
    """Whether a .tar lacks the 1,024 zeros it must end with: where the cut falls between blocks no reader complains."""
    path = Path(url)
    if "://" in url or path.suffix != ".tar":
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024))
        return any(file.read())


@dataclass
class _Stream:
    """One pass over all shards after another; what is not a picture is kept by the picture's name."""

    webdataset: Any
    urls: list[str]
    labels: dict[str, str] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        try:
            for sample in self.webdataset.WebDataset(self.urls, shardshuffle=False):
                suffix = next((key for key in sample if key.lower() in PICTURES), None)
                if suffix is not None:
                    name = f"{Path(sample['__url__']).name}/{sample['__key__']}.{suffix}"
                    self._beside(name, sample)
                    yield name, sample[suffix]
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"cannot read the shards {some(self.urls)}: {str(error).splitlines()[0]}") from None

    def _beside(self, name: str, sample: dict[str, Any]) -> None:
        described: Any = {}
        if "json" in sample:
            try:
                described = json.loads(sample["json"])
            except ValueError:
                raise UserError(f"{name}: the .json beside it is not JSON") from None
        if not isinstance(described, dict):
            described = {}
        label = sample["cls"].decode("utf-8", "replace").strip() if "cls" in sample else described.get("label")
        text = sample["txt"].decode("utf-8", "replace").strip() if "txt" in sample else None
        text = text or described.get("text") or described.get("caption")
        if label not in (None, ""):
            self.labels[name] = str(label)
        if text:
            self.captions[name] = str(text)
