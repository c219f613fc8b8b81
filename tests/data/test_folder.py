"""Folders of pictures: what is found, what is left out, and what the cache remembers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unstir.data import DataConfig, Dataset, check, load, pictures
from unstir.errors import UserError


def paint(path: Path, colour: Any = (1, 2, 3), size: tuple[int, int] = (8, 8), **options: Any) -> None:
    """A picture of one colour; size (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


def read(tmp_path: Path, **options: Any) -> Dataset:
    return load(DataConfig(source=str(tmp_path / "data"), cache=str(tmp_path / "cache"), **options))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each picture that is decoded."""
    calls: list[int] = []
    original = pictures.decode

    def counting(*arguments: Any) -> Any:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(pictures, "decode", counting)
    return calls


def test_nested_classes(tmp_path: Path) -> None:
    for i, name in enumerate(["cat/a.png", "cat/deep/b.png", "dog/c.bmp", "eel/d.webp"]):
        paint(tmp_path / "data" / name, (10 * i, 0, 5), **({"lossless": True} if name.endswith("webp") else {}))
    data = read(tmp_path)
    assert data.spec.conditions["label"].names == ("cat", "dog", "eel")
    assert np.asarray(data.conditions["label"]).tolist() == [0, 0, 1, 2]
    assert data.x[:, 0, 0].tolist() == [[0, 0, 5], [10, 0, 5], [20, 0, 5], [30, 0, 5]]
    assert data.report.classes == {"cat": 2, "dog": 1, "eel": 1}
    assert "label" not in read(tmp_path, labels=False).conditions


@pytest.mark.parametrize(
    ("names", "classes", "note"),
    [
        (["a.png", "b.png"], None, None),
        (["one/a.png", "one/b.png"], None, None),
        (["set/x/a.png", "set/y/b.png"], ("x", "y"), None),
        (["x/a.png", "y/b.png", "c.png"], None, "1 pictures lie beside the sub-folders"),
        (["train/x/a.png", "test/x/b.png"], None, "look like splits"),
        (["10/a.png", "9/b.png", "2/c.png"], ("2", "9", "10"), None),
    ],
)
def test_what_counts_as_classes(
    tmp_path: Path, names: list[str], classes: tuple[str, ...] | None, note: str | None
) -> None:
    for name in names:
        paint(tmp_path / "data" / name)
    data = read(tmp_path)
    assert (data.spec.conditions["label"].names if "label" in data.spec.conditions else None) == classes
    assert any(note in line for line in data.report.notes) if note else not data.report.notes


def test_content_counts_not_the_name(tmp_path: Path) -> None:
    paint(tmp_path / "data/jpeg_named.png", format="JPEG")
    paint(tmp_path / "data/no_suffix", format="PNG")
    paint(tmp_path / "data/odd.dat", format="GIF")
    paint(tmp_path / "data/.hidden.png")
    paint(tmp_path / "data/.thumbnails/a.png")
    (tmp_path / "data/README.md").write_text("about")
    data = read(tmp_path)
    assert len(data) == 3
    assert data.report.broken == {}
    assert data.report.notes == ["1 other files are ignored: README.md"]


def test_broken_files_are_named_with_the_reason(tmp_path: Path) -> None:
    for i in range(5):
        paint(tmp_path / f"data/good{i}.png", (i, 0, 0))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for name in ("cut.png", "cut.jpg"):
        noise.save(tmp_path / "data" / name)
        whole = (tmp_path / "data" / name).read_bytes()
        (tmp_path / "data" / name).write_bytes(whole[: len(whole) // 2])
    (tmp_path / "data/empty.png").write_bytes(b"")
    (tmp_path / "data/page.jpg").write_text("<html>404</html>")
    data = read(tmp_path, size=(8, 8))
    assert data.x[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]  # the rows of the broken ones are gone
    reasons = data.report.broken
    assert set(reasons) == {"cut.png", "cut.jpg", "empty.png", "page.jpg"}
    assert "truncated" in reasons["cut.png"]
    assert "truncated" in reasons["cut.jpg"]
    assert reasons["empty.png"] == "empty file (0 bytes)"
    assert reasons["page.jpg"] == "text, not a picture: '<html>404</html>'"
    assert data.report.problems()[0].startswith("4 broken files are left out: cut.jpg, cut.png, empty.png and 1 more")
    printed = str(check(DataConfig(source=str(tmp_path / "data"), cache=str(tmp_path / "cache"), size=(8, 8))))
    assert all(name in printed for name in reasons)


def test_mostly_broken_is_an_error_that_names_some(tmp_path: Path) -> None:
    paint(tmp_path / "data/good.png")
    for name in ("a.png", "b.png"):
        (tmp_path / "data" / name).write_text("no")
    with pytest.raises(UserError, match=r"2 of 3 pictures are broken: a.png \(text, not a picture: 'no'\), b.png"):
        read(tmp_path)
    assert not list((tmp_path / "cache/pictures").iterdir())  # and nothing half done is left


def test_folders_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="is empty"):
        read(tmp_path)
    (tmp_path / "data/notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"holds no pictures among its 1 files: notes.txt"):
        read(tmp_path)
    (tmp_path / "data/x.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"for its .npz files give --data .*x.npz"):
        read(tmp_path)


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    paint(tmp_path / "data/a.png", (7, 7, 7))
    Image.new("L", (8, 8), 200).save(tmp_path / "data/b.png")
    data = read(tmp_path)
    assert data.spec.shape == (1, 8, 8)
    assert data.x[:, 0, 0, 0].tolist() == [7, 200]
    assert read(tmp_path, channels="rgb").spec.shape == (3, 8, 8)
    paint(tmp_path / "data/0 first.png", (7, 7, 8))  # neither the first nor the last decides alone
    assert read(tmp_path).spec.shape == (3, 8, 8)
    assert read(tmp_path, channels="gray").x[0, 0, 0].tolist() == [7]
    assert read(tmp_path, channels="rgba").spec.shape == (4, 8, 8)


def test_sizes(tmp_path: Path) -> None:
    paint(tmp_path / "data/a.png", size=(30, 20))
    assert read(tmp_path).spec.shape == (3, 20, 30)
    paint(tmp_path / "data/b.png", size=(40, 22))
    data = read(tmp_path)
    assert data.spec.shape == (
        3,
        16,
        16,
    )  # the smaller of the two short sides, 20, to the nearest multiple of 8 (a tie: even)
    assert data.report.problems() == ["pictures are resized to 16 x 16 (--data.size H W chooses)"]
    assert read(tmp_path, size=(12, 10)).spec.shape == (3, 12, 10)


def test_the_second_time_opens_no_picture(tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        paint(tmp_path / f"data/x/{i}.png", (i, 0, 0))
    first = read(tmp_path)
    assert len(decoded) == 3
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("a picture was opened"))
    monkeypatch.setattr("unstir.data.folder.digest", lambda _: pytest.fail("a file was read"))
    second = read(tmp_path)
    np.testing.assert_array_equal(first.x, second.x)
    assert second.fingerprint == first.fingerprint
    assert isinstance(second.x, np.memmap)


def test_a_touched_folder_is_not_decoded_again_and_a_changed_one_is(tmp_path: Path, decoded: list[int]) -> None:
    for i in range(3):
        paint(tmp_path / f"data/{i}.png", (i, 0, 0))
    read(tmp_path)
    os.utime(tmp_path / "data/1.png", (1, 1))
    assert read(tmp_path).x[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert len(decoded) == 3
    before = (tmp_path / "data/1.png").stat()
    paint(tmp_path / "data/1.png", (9, 0, 0))
    assert (tmp_path / "data/1.png").stat().st_size == before.st_size
    assert read(tmp_path).x[:, 0, 0, 0].tolist() == [0, 9, 2]
    assert len(decoded) == 6
    (tmp_path / "data/2.png").unlink()
    assert len(read(tmp_path)) == 2
    assert len(decoded) == 8


def test_another_option_is_another_entry(tmp_path: Path, decoded: list[int]) -> None:
    paint(tmp_path / "data/a.png", size=(20, 30))
    for options in (
        {},
        {"size": (8, 8)},
        {"size": (8, 8), "fit": "pad"},
        {"size": (8, 8), "fit": "pad", "background": "red"},
    ):
        read(tmp_path, **options)  # type: ignore[arg-type]
    assert len(decoded) == 4
    read(tmp_path, size=(8, 8), fit="pad", background="#ff0000", flip=True, labels=False)
    assert len(decoded) == 4


@pytest.mark.parametrize("harm", ["cut", "flip", "no meta", "bad meta", "no array"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, decoded: list[int], harm: str) -> None:
    for i in range(3):
        paint(tmp_path / f"data/{i}.png", (i, 0, 0))
    expected = np.array(read(tmp_path).x)
    entry = next(path for path in (tmp_path / "cache/pictures").iterdir())
    array, meta = entry / "x.npy", entry / "meta.json"
    content = bytearray(array.read_bytes())
    if harm == "cut":
        array.write_bytes(content[:-10])
    elif harm == "flip":
        content[-1] ^= 1
        array.write_bytes(content)
    elif harm == "bad meta":
        meta.write_text('{"names": [')
    else:
        (meta if harm == "no meta" else array).unlink()
    np.testing.assert_array_equal(read(tmp_path).x, expected)
    assert len(decoded) == 6
    read(tmp_path)
    assert len(decoded) == 6


def test_a_cache_inside_the_folder_is_not_data(tmp_path: Path) -> None:
    paint(tmp_path / "data/a.png")
    for _ in range(2):
        data = load(DataConfig(source=str(tmp_path / "data"), cache=str(tmp_path / "data/cache")))
        assert len(data) == 1
        assert not data.report.notes


def test_links_are_followed_once(tmp_path: Path) -> None:
    paint(tmp_path / "data/x/a.png")
    paint(tmp_path / "elsewhere/b.png")
    (tmp_path / "data/y").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/x/loop").symlink_to(tmp_path / "data")
    assert read(tmp_path).spec.conditions["label"].names == ("x", "y")


def test_names_of_any_kind(tmp_path: Path) -> None:
    paint(tmp_path / "data/ünï cödé.png")
    odd = os.fsencode(tmp_path) + b"/data/\xff\xfe.png"
    try:
        with open(odd, "wb") as file:
            Image.new("RGB", (8, 8)).save(file, "PNG")
    except OSError:
        pytest.skip("this file system takes only valid names")
    assert len(read(tmp_path)) == 2
    with open(odd, "wb") as file:
        file.write(b"broken")
    assert "\\udcff" in str(check(DataConfig(source=str(tmp_path / "data"), cache=str(tmp_path / "cache"))))


def test_duplicates_are_found(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        paint(tmp_path / "data" / name, (0 if name != "c.png" else 1, 0, 0))
    assert read(tmp_path).report.duplicates == [["a.png", "b.png"]]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    for i in range(5):
        paint(tmp_path / f"data/{i}.png")
    seen: list[tuple[int, int]] = []
    load(DataConfig(source=str(tmp_path / "data"), cache=str(tmp_path / "cache")), lambda *at: seen.append(at))
    assert seen[-1] == (5, 5)


def test_streams_of_more_than_one_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "WINDOW", 4)
    for i in range(11):
        paint(tmp_path / f"data/{i:02d}.png", (i, 0, 0))
    (tmp_path / "data/05.png").write_bytes(b"")
    assert read(tmp_path).x[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    paint(tmp_path / "data/a.png")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot write the cache .*--data.cache"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"--data.kind signal: .* holds pictures"):
        read(tmp_path, kind="signal")
