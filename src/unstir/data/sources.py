"""SOURCE, the one word that says where data is: which reader takes it."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from unstir.data.arrays import read_npy, read_npz
from unstir.data.builtin import BUILTIN, SPLITS
from unstir.data.config import DataConfig
from unstir.data.contents import Contents, Progress
from unstir.data.folder import read_folder
from unstir.data.hub import read_hub
from unstir.data.shards import read_shards
from unstir.data.table import read_csv
from unstir.errors import UserError, did_you_mean

FILES: dict[str, Callable[[Path, DataConfig], Contents]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_csv,
    ".tsv": read_csv,
}


def read(config: DataConfig, progress: Progress | None = None) -> Contents:
    """Reads the source, whatever it is.

    A built-in name wins over a file or folder of that name in the current folder (write ./emoji for that).

    Raises:
        UserError: no such source, nothing that this library reads, or a split that the source does not have.
    """
    contents = _read(config, progress)
    if config.split != DataConfig.split:
        contents.report.source += f" ({config.split})"
    return contents


def _read(config: DataConfig, progress: Progress | None) -> Contents:
    source = config.source.strip()
    if not source:
        raise UserError(
            f"say where the data is: --data FOLDER, FILE.npy, FILE.csv or a built-in name ({', '.join(BUILTIN)})"
        )
    if source in BUILTIN:
        _check_split(source, config.split)
        return BUILTIN[source](config)
    if source.startswith("hf:"):
        return read_hub(source.removeprefix("hf:"), config, progress)
    path = Path(source).expanduser()
    if path.exists() or ".tar" in path.suffixes:  # what is not there is told first
        _check_split(source, config.split)
    if path.is_dir():
        return read_folder(path, config, progress)
    if path.suffix == ".tar" or ".tar" in path.suffixes:
        return read_shards(source, config, progress)
    if path.is_file():
        if path.suffix.lower() in FILES:
            return FILES[path.suffix.lower()](path, config)
        raise UserError(
            f"{source} is one file of kind {path.suffix or 'unknown'}; give a folder of pictures, {', '.join(FILES)} or *.tar"
        )
    raise UserError(_missing(source, path))


def _check_split(source: str, split: str) -> None:
    splits = SPLITS.get(source, (DataConfig.split,))
    if split in splits:
        return
    if len(splits) > 1:
        raise UserError(f"{source} has no split {split!r} (splits: {', '.join(splits)})")
    raise UserError(
        f"{source} has no splits, so no {split!r} either; give data that was kept apart as a source of its own (--data SOURCE)"
    )


def _missing(source: str, path: Path) -> str:
    if glob.has_magic(source):
        return f"{source}: patterns are for shards (*.tar) alone; give the folder"
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    if not path.parent.is_dir():
        return f"no data at {source}: there is no folder {path.parent}"
    known = list(BUILTIN) if path.parent == Path() else []
    return f"no data at {source}: {did_you_mean(path.name, [*known, *sorted(beside)[:20]])}"
