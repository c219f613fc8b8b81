"""Entries appear whole or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unstir.data.cache import BLOCK, Cache, digest
from unstir.errors import UserError


def writer(value: int) -> Any:
    def write(folder: Path) -> dict[str, Any]:
        np.save(folder / "x.npy", np.full((2, 3), value))
        return {"value": value}

    return write


def test_found_as_built(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.find("k") is None
    x, meta = cache.build("k", writer(7))
    assert (x.tolist(), meta) == ([[7] * 3] * 2, {"value": 7})
    found = cache.find("k")
    assert found is not None
    assert found[1] == {"value": 7}


def test_a_build_that_dies_leaves_nothing(tmp_path: Path) -> None:
    def dies(folder: Path) -> dict[str, Any]:
        np.save(folder / "x.npy", np.zeros(3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).build("k", dies)
    assert Cache(tmp_path).find("k") is None
    assert not list((tmp_path / "pictures").iterdir())


def test_of_two_builds_at_once_one_wins(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def slow(folder: Path) -> dict[str, Any]:
        cache.build("k", writer(1))  # another process, meanwhile
        return writer(1)(folder)  # type: ignore[no-any-return]

    x, _ = cache.build("k", slow)
    assert x.tolist() == [[1] * 3] * 2
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["k"]


def test_remains_of_killed_builds_are_swept_after_a_day(tmp_path: Path) -> None:
    for name, age in [(".building-old", 90000), (".building-new", 10)]:
        (tmp_path / "pictures" / name).mkdir(parents=True)
        os.utime(tmp_path / "pictures" / name, (time.time() - age,) * 2)
    Cache(tmp_path).build("k", writer(1))
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [".building-new", "k"]


def test_digest_sees_every_byte_of_files_that_are_not_huge(tmp_path: Path) -> None:
    content = bytearray(np.random.default_rng(0).bytes(3 * BLOCK + 17))
    path = tmp_path / "file"
    path.write_bytes(content)
    found = {digest(path)}
    places = [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 5, 3 * BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 16]
    for place in places:
        content[place] ^= 1
        path.write_bytes(content)
        found.add(digest(path))
        content[place] ^= 1
    for other in (content[:-1], content + b"\0"):
        path.write_bytes(other)
        found.add(digest(path))
    assert len(found) == 1 + len(places) + 2
    (tmp_path / "copy").write_bytes(content)
    path.write_bytes(content)
    assert digest(tmp_path / "copy") == digest(path) in found  # of what is in it, whatever its name and age


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unstir.data import pictures

    monkeypatch.setattr(pictures.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match=r"need up to .* GB .*--data.cache, or a smaller --data.size"):
        pictures._ensure_room(tmp_path / "x.npy", 100)
