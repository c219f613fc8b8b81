"""The cache of decoded pictures and encoded captions: never half written, never trusted blindly."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unstir.data.contents import Array
from unstir.errors import UserError

BLOCK = 2**20
BLOCKS = 256
TAG = "CACHEDIR.TAG"  # https://bford.info/cachedir/: tells backups, and our own folder reader, what this is
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# Pictures decoded and captions encoded by unstir. Safe to delete.\n"
)
ABANDONED = 24 * 3600.0  # seconds after which the remains of a killed build are swept away


def digest(path: Path) -> str:
    """Hash of a file: of all of it up to 256 MiB; of its size and 256 evenly spread blocks of 1 MiB where it is
    larger."""
    size = path.stat().st_size
    hasher = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if size <= BLOCK * BLOCKS:
            while block := file.read(BLOCK):
                hasher.update(block)
        else:
            for i in range(BLOCKS):
                file.seek((size - BLOCK) * i // (BLOCKS - 1))
                hasher.update(file.read(BLOCK))
    return hasher.hexdigest()


def key_of(*parts: Any) -> str:
    """Hash of plain values. File names that are no valid UTF-8 are welcome."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


class Cache:
    """Arrays with a description, by key: FOLDER/pictures/KEY/{x.npy, meta.json}, and FOLDER/quick/KEY, which names such
    a key. ``kind`` is another word for "pictures", where they are something else.

    An entry is built in a folder of its own and renamed when complete, so a killed build leaves nothing that looks like
    an entry, and of two builds at once one wins. ``meta.json`` holds the hash of ``x.npy`` and of
    itself (older ones do not); an entry that does not agree is not there.
    """

    def __init__(self, folder: Path, kind: str = "pictures") -> None:
        self.folder = folder
        self.entries = folder / kind

    def find(self, key: str) -> tuple[Array, dict[str, Any]] | None:
        """(read-only memory map, description), or None where there is no such entry or it is damaged."""
        entry = self.entries / key
        try:
            meta = json.loads((entry / "meta.json").read_text("utf-8"))
            contents, description = meta.pop("digest"), meta.pop("description", None)
            if digest(entry / "x.npy") != contents or description not in (None, key_of(meta)):
                return None
            return np.load(entry / "x.npy", mmap_mode="r", allow_pickle=False), meta
        except (OSError, ValueError, KeyError, AttributeError, EOFError):
            return None

    def find_or_build(self, key: str, write: Callable[[Path], dict[str, Any]]) -> tuple[Array, dict[str, Any]]:
        """The entry, made where it is not there."""
        return self.find(key) or self.build(key, write)

    def build(self, key: str, write: Callable[[Path], dict[str, Any]]) -> tuple[Array, dict[str, Any]]:
        """Makes the entry: ``write`` is given a new folder, puts x.npy there and returns the description (plain
        values).

        Raises:
            UserError: the cache cannot be written.
        """
        try:
            self.entries.mkdir(parents=True, exist_ok=True)
            (self.folder / TAG).write_text(TAG_TEXT)
            _sweep(self.entries)
            building = Path(tempfile.mkdtemp(prefix=".building-", dir=self.entries))
        except OSError as error:
            raise UserError(
                f"cannot write the cache {self.folder} ({error.strerror}); choose a folder with --data.cache"
            ) from None
        try:
            meta = write(building)
            meta = meta | {"digest": digest(building / "x.npy"), "description": key_of(meta)}
            (building / "meta.json").write_text(json.dumps(meta), "utf-8")
            self._publish(building, self.entries / key)
        except OSError as error:
            raise UserError(
                f"cannot write the cache {self.folder} ({error.strerror or error}); choose one with --data.cache"
            ) from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
        entry = self.find(key)
        if entry is None:
            raise UserError(
                f"the cache {self.folder} does not keep what is written to it; choose a folder with --data.cache"
            )
        return entry

    def _publish(self, building: Path, entry: Path) -> None:
        if entry.exists() and self.find(entry.name) is None:
            # Moved away first: os.rename is one step, rmtree is not.
            broken = Path(tempfile.mkdtemp(prefix=".broken-", dir=entry.parent))
            os.rename(entry, broken / "entry")
            shutil.rmtree(broken, ignore_errors=True)
        try:
            os.rename(building, entry)
        except OSError:
            if self.find(entry.name) is None:  # else another process was first, with the same content
                raise

    def alias(self, quick: str) -> str | None:
        """The key that a quick key stands for, if it is known."""
        try:
            return (self.folder / "quick" / quick).read_text("ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def set_alias(self, quick: str, key: str) -> None:
        """Remembers what a quick key stands for; losing it costs only time."""
        folder = self.folder / "quick"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
                file.write(key)
            os.replace(file.name, folder / quick)
        except OSError:
            return


def _sweep(folder: Path) -> None:
    """Removes what builds that were killed long ago have left."""
    for entry in folder.glob(".b*-*"):
        if time.time() - entry.stat().st_mtime > ABANDONED:
            shutil.rmtree(entry, ignore_errors=True)
