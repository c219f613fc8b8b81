"""Data sets in the hub's format, made here: nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unstir.data import DataConfig, load
from unstir.data.hub import _load
from unstir.errors import UserError


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r'pip install "unstir\[hub\]"'):
        load(DataConfig(source="hf:someone/something"))


class FakeHub:
    """As much of the library as chooses a split."""

    def __init__(self, *splits: str) -> None:
        self.splits = {split: f"the table of {split}" for split in splits}

    def load_dataset(self, path: str) -> dict[str, str]:
        return self.splits


def test_which_split() -> None:
    both = FakeHub("train", "test")
    for name, split, expected in (
        ("x", "train", "train"),
        ("x", "test", "test"),
        ("x:test", "train", "test"),
        ("x:test", "test", "test"),
    ):
        assert _load(both, name, split) == f"the table of {expected}"
    no_train = FakeHub("validation", "test")
    assert _load(no_train, "x", "train") == "the table of validation"  # nobody asked for train
    assert _load(no_train, "x", "test") == "the table of test"
    with pytest.raises(UserError, match=r"hf:x has no split 'dev' \(splits: train, test\)"):
        _load(both, "x", "dev")
    with pytest.raises(UserError, match=r"names the split 'train', and --data.split another, 'test'"):
        _load(both, "x:train", "test")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    datasets = pytest.importorskip("datasets", reason="the extra unstir[hub] is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    return datasets


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_a_folder_in_the_hubs_format(hub: Any, tmp_path: Path) -> None:
    for split, names in [("train", ["b/0.png", "a/1.png", "a/2.png"]), ("test", ["a/3.png"])]:
        for name in names:
            path = tmp_path / "set" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (int(path.stem), 0, 0)).save(path)
    data = load(DataConfig(source=f"hf:{tmp_path / 'set'}", cache=str(tmp_path / "cache")))
    label = np.asarray(data.conditions["label"])
    assert data.spec.conditions["label"].names == ("a", "b")
    assert dict(zip(data.x[:, 0, 0, 0].tolist(), label.tolist(), strict=True)) == {0: 1, 1: 0, 2: 0}
    test = load(DataConfig(source=f"hf:{tmp_path / 'set'}:test", cache=str(tmp_path / "cache")))
    assert test.x[:, 0, 0, 0].tolist() == [3]
    with pytest.raises(UserError, match=r"no split 'dev' \(splits: train, test\)"):
        load(DataConfig(source=f"hf:{tmp_path / 'set'}:dev"))


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_what_cannot_be_used(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "table/train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"no column of pictures \(columns: a, b\)"):
        load(DataConfig(source=f"hf:{tmp_path / 'table'}"))
    with pytest.raises(UserError, match="cannot load hf:"):
        load(DataConfig(source=f"hf:{tmp_path / 'absent'}"))
