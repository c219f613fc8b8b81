"""Tables: .csv and .tsv files of numbers with a header."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unstir.data.arrays import from_array
from unstir.data.cache import digest
from unstir.data.config import DataConfig
from unstir.data.contents import Contents, class_column
from unstir.data.report import some
from unstir.errors import UserError

CLASS_COLUMNS = ("label", "class", "y", "target")
Rows = list[tuple[int, list[str]]]  # line number, cells


def read_csv(path: Path, config: DataConfig) -> Contents:
    """Every row a sample, every column of numbers a coordinate (float64); a column label, class, y or target gives the
    classes.

    Comma, semicolon or tab between the cells, whichever the header has most of. Columns without a single number are
    left out. A first line of nothing but numbers is data, not a header.

    Raises:
        UserError: naming the line and column of a cell that is no number, or a line with too few or too many cells.
    """
    names, rows, notes = _read(path)
    if not rows:
        raise UserError(f"{path} holds no rows below its header")
    label = next((i for i, name in enumerate(names) if name.lower() in CLASS_COLUMNS), None)
    found = {}
    if label is not None:
        found["label"] = class_column([_class_name(cells[label]) for _, cells in rows])
        if not config.labels:
            notes.append(f"column {names[label]!r} holds the classes and is not part of the data")
    numbers: list[int] = []
    text: list[int] = []
    for i in range(len(names)):
        if i != label:
            (numbers if any(_number(cells[i]) is not None for _, cells in rows) else text).append(i)
    if text:
        notes.append(f"columns without numbers are left out: {some([names[i] for i in text])}")
    if not numbers:
        raise UserError(f"{path} has no column of numbers (columns: {some(names, 8)})")
    contents = from_array(path.stem, _numbers(path, names, rows, numbers), found, config, digest(path))
    contents.channels = tuple(names[i] for i in numbers) if contents.kind == "points" else ()
    contents.report.notes += notes
    return contents


def _read(path: Path) -> tuple[list[str], Rows, list[str]]:
    """(column names, rows, notes)."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not lines:
        raise UserError(f"{path} is empty")
    names = lines[0][1]
    notes = []
    if all(_number(cell) is not None for cell in names):
        names = [f"column {i + 1}" for i in range(len(names))]
        notes.append("the first line holds numbers, so it is taken as data and not as a header")
    else:
        lines = lines[1:]
    for number, cells in lines:
        if len(cells) != len(names):
            raise UserError(f"{path}, line {number}: {len(cells)} cells, but the header has {len(names)} columns")
    return names, lines, notes


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _class_name(cell: str) -> str:
    """3.0 and 3 are one class: spreadsheets write whole numbers both ways."""
    value = _number(cell)
    return str(int(value)) if value is not None and np.isfinite(value) and value == int(value) else cell


def _numbers(path: Path, names: list[str], rows: Rows, columns: list[int]) -> npt.NDArray[np.float64]:
    x = np.empty((len(rows), len(columns)))
    for row, (line, cells) in enumerate(rows):
        for column, i in enumerate(columns):
            value = _number(cells[i])
            if value is None:
                found = f"{cells[i]!r} is not a number" if cells[i] else "the cell is empty"
                raise UserError(f"{path}, line {line}, column {names[i]!r}: {found}; mend it or take the row out")
            x[row, column] = value
    return x
