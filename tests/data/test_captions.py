"""Captions and labels beside pictures, and the mistakes people make with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unstir.data import DataConfig, Dataset, load
from unstir.data.captions import nearly
from unstir.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "sub/c.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path)
    return tmp_path / "data"


def read(folder: Path) -> Dataset:
    return load(DataConfig(source=str(folder), cache=str(folder.parent / "cache")))


def test_jsonl(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "sub/c.png", "text": "sea"}\n\n{"file_name": "a.png", "text": "a hill", "label": 3}\n'
        '{"file_name": "gone.png", "text": "nothing"}\n'
    )
    data = read(folder)
    assert data.conditions["text"] == ["a hill", "", "sea"]
    assert data.spec.conditions["text"].kind == "text"
    assert data.spec.conditions["label"].names == ("3",)
    assert np.asarray(data.conditions["label"]).tolist() == [0, -1, -1]
    assert "captions of 1 files that are not there: gone.png" in data.report.notes
    assert "1 pictures have no caption: b.png" in data.report.notes


def test_csv_and_a_metadata_file_in_a_sub_folder(folder: Path) -> None:
    (folder / "metadata.csv").write_text('file_name,text\na.png,"one, two"\nb.png,three\n')
    (folder / "sub/metadata.csv").write_text("file_name,caption\nc.png,four\n")
    assert read(folder).conditions["text"] == ["one, two", "three", "four"]


def test_files_of_the_pictures_own_name(folder: Path) -> None:
    (folder / "a.txt").write_text("first\n")
    (folder / "sub/c.json").write_text('{"caption": "third"}')
    (folder / "notes.txt").write_text("not a caption")
    data = read(folder)
    assert data.conditions["text"] == ["first", "", "third"]
    assert "1 other files are ignored: notes.txt" in data.report.notes


def test_a_caption_of_a_broken_picture_is_no_news(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"")
    (folder / "metadata.csv").write_text("file_name,text\na.png,x\nb.png,y\nsub/c.png,z\n")
    data = read(folder)
    assert data.conditions["text"] == ["x", "z"]
    assert not [note for note in data.report.notes if "caption" in note]


@pytest.mark.parametrize(
    "name", ["metadata.json1", "metadata.json", "Metadata.jsonl", "metdata.jsonl", "metadata.txt", "metadata.tsv"]
)
def test_near_misses_are_named(folder: Path, name: str) -> None:
    (folder / name).write_text('{"file_name": "a.png", "text": "x"}\n')
    data = read(folder)
    assert "text" not in data.conditions
    assert data.report.notes == [f"{name} is not read: captions belong in metadata.jsonl or metadata.csv; rename it"]


def test_other_names_are_not_near_misses() -> None:
    assert not any(nearly(name) for name in ("metadata.jsonl", "metadata.csv", "data.csv", "labels.json", "a.txt"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "x"}\n{"file_name": \n',
            r"metadata.jsonl, line 2: not JSON",
        ),
        ("metadata.jsonl", '["a.png"]\n', r"line 1: not an object"),
        ("metadata.jsonl", '{"filename": "a.png"}\n', r"line 1: no file_name; did you mean filename"),
        ("metadata.csv", "image,text\na.png,x\n", r"metadata.csv, line 2: no file_name"),
        ("a.json", "{", r"cannot read .*a.json"),
    ],
)
def test_unreadable_metadata_is_an_error_with_its_line(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read(folder)


def test_a_changed_caption_is_seen(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,text\na.png,x\n")
    assert read(folder).conditions["text"] == ["x", "", ""]
    (folder / "metadata.csv").write_text("file_name,text\na.png,longer\n")
    assert read(folder).conditions["text"] == ["longer", "", ""]
