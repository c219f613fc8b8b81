"""The evaluations of a run, in its folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unstir.errors import UserError
from unstir.evaluation.report import Report

FILE = "evaluation.jsonl"


def append(folder: Path, report: Report) -> None:
    """Adds a line: the results, the lines that were printed, settings, seed, time and hardware.

    Raises:
        UserError: it cannot be written.
    """
    row = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "lines": report.table(),
        **report.about,
        "results": report.to_json(),
    }
    try:
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=str) + "\n")
    except OSError as error:
        raise UserError(f"could not write {folder / FILE}: {error.strerror}") from error


def last(folder: Path) -> dict[str, Any] | None:
    """The newest line that can be read."""
    try:
        lines = (folder / FILE).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            return row
    return None
