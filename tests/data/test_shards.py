"""Shards made with the standard library's tarfile."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unstir.data import DataConfig, Dataset, load, pictures
from unstir.data.shards import expand
from unstir.errors import UserError


def shard(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def read(tmp_path: Path, pattern: str) -> Dataset:
    pytest.importorskip("webdataset")
    return load(DataConfig(source=str(tmp_path / pattern), cache=str(tmp_path / "cache")))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    shard(tmp_path / "s-000.tar", {"a.png": png(1), "a.cls": b"10", "a.txt": b"one\n", "b.png": png(2), "b.cls": b"9"})
    shard(
        tmp_path / "s-001.tar",
        {"c.json": b'{"label": 10, "text": "three"}', "c.png": png(3), "d.png": b"broken", "e.txt": b"alone"},
    )
    return tmp_path


@pytest.mark.parametrize("pattern", ["s-{000..001}.tar", "s-*.tar"])
def test_pictures_classes_and_captions(shards: Path, pattern: str) -> None:
    data = read(shards, pattern)
    assert data.x[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert data.spec.conditions["label"].names == ("9", "10")
    assert np.asarray(data.conditions["label"]).tolist() == [1, 0, 1]
    assert data.conditions["text"] == ["one", "", "three"]
    assert data.report.broken == {"s-001.tar/d.png": "text, not a picture: 'broken'"}


def test_the_second_time_comes_from_the_cache(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(shards, "s-*.tar")
    monkeypatch.setattr(pictures, "decode", lambda *_: pytest.fail("decoded again"))
    second = read(shards, "s-*.tar")
    assert second.fingerprint == first.fingerprint
    assert second.conditions["text"] == first.conditions["text"]


def test_damaged_shards_and_missing_extra(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (shards / "s-000.tar").read_bytes()
    (shards / "s-000.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(UserError, match=r"not .tar files, or damaged: .*s-000.tar"):
        read(shards, "s-000.tar")
    (shards / "s-000.tar").write_bytes(whole)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(UserError, match=r'pip install "unstir\[webdataset\]"'):
        load(DataConfig(source=str(shards / "s-000.tar")))


def test_a_shard_that_was_cut_short_is_said(shards: Path) -> None:
    whole = (shards / "s-000.tar").read_bytes()
    (shards / "s-000.tar").write_bytes(whole[: 4 * 512])  # after a.cls: a whole number of blocks
    data = read(shards, "s-*.tar")
    assert len(data) == 2
    assert data.report.notes == [f"cut short, what follows is missing: {shards}/s-000.tar"]


def test_patterns(shards: Path) -> None:
    pytest.importorskip("webdataset")
    assert expand(f"{shards}/s-{{000..001}}.tar") == [f"{shards}/s-000.tar", f"{shards}/s-001.tar"]
    assert expand("https://example.org/s-{7..9}.tar")[-1] == "https://example.org/s-9.tar"
