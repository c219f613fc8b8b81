"""Checkpoints: everything that exact resumption needs, written so that no moment of a crash loses the previous one."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from unstir.errors import UserError

_NAME = re.compile(r"step-(\d{9})\.pt")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file under a temporary name, flushes it to the disk and renames it: it is there whole or not at all.

    Raises:
        UserError: if it cannot be written (a full disk, say); what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save wraps a full disk in a RuntimeError
        temporary.unlink(missing_ok=True)
        raise UserError(f"could not write {path}: {error}".splitlines()[0]) from error


class Checkpoints:
    """The checkpoints of one run: ``step-000001000.pt`` and so on in a folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """The steps at which there is a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)))

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes a checkpoint and then removes those older than the newest ``keep``.

        Raises:
            UserError: if it cannot be written; the earlier ones are still good.
        """
        write_atomically(self.path(step), lambda file: torch.save(state, file))
        for old in self.steps()[: -self.keep]:
            self.path(old).unlink(missing_ok=True)

    def at(self, step: int) -> dict[str, Any]:
        """The checkpoint of this step.

        Raises:
            UserError: there is none, with the steps that there are, or it is damaged.
        """
        if step not in self.steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise UserError(
                f"there is no checkpoint of step {step} in {self.folder}; of steps: {there} (training.keep keeps more)"
            )
        state, broken = self._newest([step])
        if state is None:
            raise UserError(f"the checkpoint {broken[0]} in {self.folder} is damaged")
        return state

    def load(self) -> tuple[dict[str, Any], list[str]]:
        """The newest checkpoint that can be read, and the names of newer ones that cannot.

        Raises:
            UserError: if there is none.
        """
        for leftover in self.folder.glob(".step-*.tmp"):  # of a process that was killed while writing
            leftover.unlink(missing_ok=True)
        state, broken = self._newest(self.steps())
        if state is not None:
            return state, broken
        if broken:
            raise UserError(
                f"no checkpoint in {self.folder} can be read (damaged: {', '.join(broken)}); nothing to resume"
            )
        raise UserError(f"there is no checkpoint in {self.folder}; nothing to resume")

    def _newest(self, steps: list[int]) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest of these that can be read, and the names of newer ones that cannot."""
        broken: list[str] = []
        for step in reversed(steps):
            try:
                with zipfile.ZipFile(self.path(step)) as archive:  # torch.load does not look at the checksums
                    if archive.testzip() is not None:
                        raise zipfile.BadZipFile
                state: dict[str, Any] = torch.load(self.path(step), map_location="cpu", weights_only=True)
                return state, broken
            except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile):
                broken.append(self.path(step).name)
        return None, broken
