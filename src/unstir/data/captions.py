"""Captions and labels that lie beside pictures: metadata.jsonl, metadata.csv, and a .txt or .json of a picture's own
name.

The convention of Hugging Face's `imagefolder`: `file_name` (relative to the metadata file) and `text`; we also read
`label`.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from unstir.data.report import printable, some
from unstir.errors import UserError, did_you_mean

TEXT_KEYS = ("text", "caption")
NEAR = (
    *[f"metadata.{end}" for end in ("json", "txt", "ndjson", "jsonlines", "tsv", "json1", "jsonl.txt", "csv.txt")],
    "captions.jsonl",
)


@dataclass
class SideCars:
    """What lies beside the pictures: captions and labels by picture name, and what to say about it."""

    captions: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"{path}, line {number}: not JSON ({error.msg}); one object a line is needed"
                    ) from None
                if not isinstance(row, dict):
                    raise UserError(
                        f'{path}, line {number}: not an object such as {{"file_name": "a.png", "text": "..."}}'
                    )
                yield number, row


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if key is not None and value is not None}


READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]] = {
    "metadata.jsonl": _jsonl,
    "metadata.csv": _csv,
}


def is_side_car(name: str, stems: Collection[str]) -> bool:
    """Whether a file of a folder is not to be tried as a picture: metadata, nearly metadata, or a .txt/.json beside a
    picture.

    Args:
        name: relative, with slashes.
        stems: names without suffix of all files that are neither .txt nor .json.
    """
    path = PurePosixPath(name)
    return (
        path.name in READERS or nearly(path.name) or (path.suffix.lower() in (".txt", ".json") and _stem(name) in stems)
    )


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def stems_of(names: Collection[str]) -> set[str]:
    """What ``is_side_car`` compares with."""
    return {_stem(name) for name in names if PurePosixPath(name).suffix.lower() not in (".txt", ".json")}


def nearly(name: str) -> bool:
    """Whether a file's name looks like a mistyped metadata.jsonl or metadata.csv."""
    if name in READERS:
        return False
    return name.lower() in (*READERS, *NEAR) or bool(difflib.get_close_matches(name.lower(), READERS, n=1, cutoff=0.85))


def read_side_cars(
    folder: Path, names: Collection[str], pictures: Collection[str], broken: Collection[str]
) -> SideCars:
    """Reads everything that says something about the pictures.

    Args:
        folder: the data.
        names: all files in it, relative, with slashes.
        pictures: those that are pictures.
        broken: those that are left out: that they have a caption is no news.

    Raises:
        UserError: a metadata file that cannot be read, with its line.
    """
    found = SideCars()
    known, absent = set(pictures), []
    for name in names:
        path = PurePosixPath(name)
        if path.name in READERS:
            for picture, row in _rows(folder, path, READERS[path.name]):
                if picture not in known:
                    absent += [picture] if picture not in broken else []
                    continue
                _take(found, picture, row)
    stems = {_stem(picture): picture for picture in pictures}
    for name in names:
        own = stems.get(_stem(name))
        if own and name != own and PurePosixPath(name).suffix.lower() in (".txt", ".json"):
            _take(found, own, _own_file(folder / name))
    metadata = {PurePosixPath(name).parent for name in names if PurePosixPath(name).name in READERS}
    for name in names:
        if nearly(PurePosixPath(name).name) and PurePosixPath(name).parent not in metadata:
            found.notes.append(
                f"{printable(name)} is not read: captions belong in metadata.jsonl or metadata.csv; rename it"
            )
    if absent:
        found.notes.append(f"captions of {len(absent)} files that are not there: {some(absent)}")
    lacking = [name for name in pictures if name not in found.captions] if found.captions else []
    if lacking:
        found.notes.append(f"{len(lacking)} pictures have no caption: {some(lacking)}")
    return found


def _rows(
    folder: Path, path: PurePosixPath, reader: Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        for number, row in reader(folder / path):
            if "file_name" not in row:
                raise UserError(
                    f"{folder / path}, line {number}: no file_name; {did_you_mean('file_name', map(str, row))}"
                )
            yield str(path.parent / str(row["file_name"]).replace("\\", "/")), row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {folder / path}: {error}") from None


def _own_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8-sig", errors="replace").strip()
        row = json.loads(text) if path.suffix.lower() == ".json" else {"text": text}
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    return row if isinstance(row, dict) else {}


def _take(found: SideCars, picture: str, row: dict[str, Any]) -> None:
    text = next((row[key] for key in TEXT_KEYS if row.get(key) not in (None, "")), None)
    if text is not None:
        found.captions[picture] = str(text)
    if row.get("label") not in (None, ""):
        found.labels[picture] = str(row["label"])
