"""What `unstir data check` says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from unstir.data import DataConfig, check, load
from unstir.data.report import Report, some


def test_a_folder(tmp_path: Path) -> None:
    for i in range(24):
        path = tmp_path / "data" / ("cat" if i else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB" if i % 2 else "L", (100, 80) if i < 20 else (50, 48), 3 * i).save(path)
    (tmp_path / "data/cat/x.jpg").write_bytes(b"\xff\xd8\xff")
    config = DataConfig(source=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    report = check(config)
    assert report.count == 24
    assert report.classes == {"cat": 23, "dog": 1}
    assert report.facts["modes"] == "RGB 12, L 12"
    assert report.facts["sizes"] == "2 different; short side 48 to 80, median 80; most often 80 x 100 (20)"
    assert list(report.broken) == ["cat/x.jpg"]
    text = str(report)
    assert text.startswith(f"{tmp_path}/data: 24 samples\n")
    assert re.search(r"cat: 23 \(96 %\)\n +dog: 1 \(4 %\)\n +unbalanced: cat has 23 times dog", text)
    assert f"try: unstir train quick --data {tmp_path}/data" in text
    assert "24 samples are few" in text
    assert len(load(config)) == 24


def test_an_array(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((600, 50, 3)).astype(np.float32)
    x[5] = x[3]
    x[..., 2] = 4
    x[7, 0, 0] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(600) % 2, classes=["no", "yes"])
    report = check(DataConfig(source=str(tmp_path / "a.npz")))
    assert report.facts["array"] == "600 x 50 x 3 float32"
    assert report.facts["used as"] == "signal, 3 x 50 (channels first)"
    finite = x[np.isfinite(x)]
    assert report.facts["range"] == f"{finite.min():.6g} to {finite.max():.6g}"
    assert report.classes == {"no": 300, "yes": 300}
    assert report.duplicates == [["3", "5"]]
    assert any(note.startswith("constant: 2;") for note in report.notes)
    assert any("1 numbers are NaN or infinite, the first in sample 7" in note for note in report.notes)
    assert report.suggestions == ["--training.batch-size 128", f"unstir train ecg --data {tmp_path}/a.npz"]


def test_built_in_data() -> None:
    assert "unstir train swiss-roll --data moons" in check(DataConfig(source="moons")).suggestions
    emoji = check(DataConfig(source="emoji"))
    assert emoji.suggestions[:2] == ["--data.size 32 32", "--training.batch-size 128"]
    assert emoji.facts["captions"] == "1,911"
    assert sum(emoji.classes.values()) == 1911
    assert ["bouvet island flag", "norway flag", "svalbard & jan mayen flag"] in emoji.duplicates


def test_many_classes_are_not_all_printed() -> None:
    report = Report("s", 300, classes={f"c{i}": i + 1 for i in range(100)})
    lines = report.lines()
    assert len(lines) == 2 + 15 + 1
    assert lines[2] == "    c99: 100 (2 %)"


def test_lists_end() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdef"), 2) == "a, b and 4 more"
    assert some(["new\nline"]) == "new\\nline"
