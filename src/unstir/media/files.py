"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from unstir.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write under a temporary name in the same folder; it takes the name ``path`` when all went well.

    Missing folders are made.

    Raises:
        UserError: the place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to tell a user whose disk said no."""
    return UserError(f"cannot write {path}: {error.strerror or error}; choose another place with --out")


def check_writable(folder: Path) -> None:
    """Whether a file can be put in a folder, which may not be there yet.

    Raises:
        UserError: it cannot.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"cannot write in {folder}: {there} is a file, not a folder; choose another place with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot write in {there}: permission denied; choose another place with --out")
