"""Tables of numbers, and errors that say where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unstir.data import DataConfig, Dataset, check, load
from unstir.errors import UserError


def read(tmp_path: Path, text: str, name: str = "t.csv", encoding: str = "utf-8", **options: str) -> Dataset:
    (tmp_path / name).write_text(text, encoding)
    return load(DataConfig(source=str(tmp_path / name), **options))  # type: ignore[arg-type]


def test_columns_and_classes(tmp_path: Path) -> None:
    data = read(tmp_path, "width, Label ,height,remark\n1.5,b,-2,x\n3,a,1e3,\n2,,0,y\n")
    assert data.x.tolist() == [[1.5, -2], [3, 1000], [2, 0]]
    assert data.x.dtype == np.float64
    assert data.spec.channels == ("width", "height")
    assert data.spec.kind == "points"
    assert data.spec.conditions["label"].names == ("a", "b")
    assert np.asarray(data.conditions["label"]).tolist() == [1, 0, -1]
    assert data.report.notes == ["columns without numbers are left out: remark"]


@pytest.mark.parametrize(("separator", "name"), [(";", "t.csv"), ("\t", "t.tsv"), (",", "t.csv")])
def test_separators_and_byte_order_mark(tmp_path: Path, separator: str, name: str) -> None:
    data = read(tmp_path, f"a{separator}b\r\n1{separator}2\r\n3{separator}4\r\n\r\n", name, "utf-8-sig")
    assert data.x.tolist() == [[1, 2], [3, 4]]
    assert data.spec.channels == ("a", "b")


def test_numbers_as_classes_sort_by_value(tmp_path: Path) -> None:
    data = read(tmp_path, "x,y\n0.1,10\n0.2,9\n0.3,10.0\n")
    assert data.spec.conditions["label"].names == ("9", "10")
    assert np.asarray(data.conditions["label"]).tolist() == [1, 0, 1]


def test_a_table_without_header_loses_no_row(tmp_path: Path) -> None:
    data = read(tmp_path, "1,2\n3,4\n")
    assert data.x.tolist() == [[1, 2], [3, 4]]
    assert "the first line holds numbers" in data.report.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,four\n", r"t.csv, line 3, column 'b': 'four' is not a number"),
        ("a,b\n1,2\n\n,4\n", r"t.csv, line 4, column 'a': the cell is empty"),
        ("a,b\n1,2\n3\n", r"t.csv, line 3: 1 cells, but the header has 2 columns"),
        ('a,b\n"1\n",2\nx,3\n', r"line 4, column 'a': 'x'"),  # a cell with a line break in it
        ("a,b\n1,2\n3,nan\n", r"1 numbers are NaN or infinite, the first in sample 1"),
        ("a,b\n", "no rows below its header"),
        ("", "is empty"),
        ("a,b\nx,y\n", r"no column of numbers \(columns: a, b\)"),
    ],
)
def test_bad_cells_are_found(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_check_counts_gaps_that_training_refuses(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,5\n3,nan\ninf,5\n")
    report = check(DataConfig(source=str(tmp_path / "t.csv")))
    assert any("2 numbers are NaN or infinite" in note for note in report.notes)
    assert any(note.startswith("constant: b") for note in report.notes)


def test_a_table_of_signals(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 40))
    text = ",".join(f"t{i}" for i in range(40)) + "\n" + "\n".join(",".join(map(repr, row.tolist())) for row in rows)
    data = read(tmp_path, text)
    assert (data.spec.kind, data.spec.shape) == ("signal", (1, 40))
    np.testing.assert_array_equal(data.x, rows)
    model, _ = data.batch(np.arange(4))
    scale, offset = np.asarray(data.spec.scale), np.asarray(data.spec.offset)
    np.testing.assert_allclose(model[:, 0].numpy() * scale + offset, rows, atol=1e-6)
    flat = read(tmp_path, text, kind="points")
    assert (flat.spec.kind, flat.spec.shape) == ("points", (40,))
    assert flat.spec.channels == tuple(f"t{i}" for i in range(40))
    np.testing.assert_array_equal(flat.x, rows)
