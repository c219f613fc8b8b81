"""One word, SOURCE, and what is said when it names nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unstir.data import DataConfig, load
from unstir.errors import UserError


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "say where the data is"),
        ("emojis", "no data at emojis: did you mean emoji"),
        ("swissroll", "did you mean swiss-roll"),
        ("nowhere/at/all", "there is no folder nowhere/at"),
        ("pics/*.png", "patterns are for shards"),
        ("dta.npy", "did you mean data.npy"),
        ("film.mp4", r"one file of kind .mp4; give a folder of pictures, .npy, .npz"),
        ("shard-{00..02}.tar", "no such shards: shard-00.tar, shard-01.tar, shard-02.tar"),
        ("*.tar", r"no such shards: \*.tar"),
    ],
)
def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str) -> None:
    pytest.importorskip("webdataset") if source.endswith("tar") else None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"\0")
    np.save(tmp_path / "data.npy", np.zeros((3, 2)))
    with pytest.raises(UserError, match=message) as error:
        load(DataConfig(source=source))
    assert str(error.value).count("\n") <= 1


def test_a_built_in_name_wins_and_a_path_does_not_hide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert len(load(DataConfig(source="digits"))) == 1797
    with pytest.raises(UserError, match="is empty"):
        load(DataConfig(source="./digits"))
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(3, 2))
    (tmp_path / "a.npy").rename(tmp_path / "a.NPY")
    assert len(load(DataConfig(source="~/a.NPY"))) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("emoji", "emoji has no splits, so no 'test' either; give data that was kept apart as a source of its own"),
        ("data.npy", "data.npy has no splits"),
        ("folder", "folder has no splits"),
        ("shard-0.tar", "shard-0.tar has no splits"),
        ("fashion-mnst", "did you mean fashion-mnist"),
    ],
)
def test_what_has_no_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "data.npy", np.zeros((3, 2)))
    with pytest.raises(UserError, match=message):
        load(DataConfig(source=source, split="test"))


def test_an_unknown_split_names_those_that_are_there() -> None:
    with pytest.raises(UserError, match=r"fashion-mnist has no split 'dev' \(splits: train, test\)"):
        load(DataConfig(source="fashion-mnist", split="dev"))
