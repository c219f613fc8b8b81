"""A stranger's folder of pictures, as messy as such folders are, trains and samples with one command each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unstir.cli import run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in sub-folders; six modes, three sizes; two truncated files and a text file named .png."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for index in range(36):
        path = folder / ("cats" if index % 2 else "dogs") / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = [(20, 20), (31, 17), (16, 40)][index % 3]
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        mode = ["RGB", "RGBA", "L", "P", "CMYK", "I;16"][index // 6]
        if mode == "I;16":
            picture = Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
        elif mode != "RGB":
            picture = picture.convert(mode)
        picture.save(path.with_suffix(".tiff") if mode == "CMYK" else path)
    for name in ("cats/broken1.png", "dogs/broken2.png"):
        whole = (folder / "cats" / "01.png").read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "dogs" / "note.png").write_text("this is not a picture")
    return folder


def test_it_trains_samples_and_names_exactly_the_bad_files(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ["--data.cache", str(tmp_path / "cache")]
    run(["train", "quick", "--data", str(photos), "--out", str(tmp_path / "r"), "--training.steps", "3", *cache])
    said = capsys.readouterr().out
    assert "3 broken files are left out" in said
    for name in ("broken1.png", "broken2.png", "note.png"):
        assert name in said
    assert "36 samples 3x" in said
    assert "label (2 classes)" in said
    run(["sample", str(tmp_path / "r"), "--label", "cats", "-n", "4", "--steps", "2", "--out", str(tmp_path / "x.npz")])
    x = np.load(tmp_path / "x.npz")["arr_0"]
    assert x.dtype == np.uint8
    assert x.shape[0] == 4
    assert x.shape[-1] == 3
    capsys.readouterr()
    run(["data", "check", str(photos), *[word.replace("--data.", "--") for word in cache]])
    checked = capsys.readouterr().out
    broken = [
        line.split(":")[0].strip()
        for line in checked.split("broken files")[1].splitlines()[1:]
        if line.startswith("    ")
    ]
    assert sorted(broken) == ["cats/broken1.png", "dogs/broken2.png", "dogs/note.png"]
    for mode in ("RGB", "RGBA", "L", "P", "CMYK", "I;16"):
        assert mode in checked
