from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unstir.data.spec import Condition, DataSpec
from unstir.errors import UserError
from unstir.media.grid import picture_grid
from unstir.media.render import as_bytes, class_names, render, runs
from unstir.media.write import WRITERS, check_path, csv_header, write

RNG = np.random.default_rng(0)
LABEL = {"label": Condition("class", 3, ("flags", "T-shirt/top", "dogs"))}
HALF = (127.5,)
PICTURES = DataSpec("image", (3, 8, 6), "uint8", HALF * 3, HALF * 3, channels_last=True, conditions=LABEL)
CHANNELS_FIRST = DataSpec("image", (3, 8, 6), "uint8", HALF * 3, HALF * 3)
GREY = DataSpec("image", (1, 8, 6), "uint8", HALF, HALF, channel_axis=False)
SIGNALS = DataSpec("signal", (2, 5), channels=("MLII", "V5"), channels_last=True, conditions=LABEL)
POINTS = DataSpec("points", (3,), "float64", conditions=LABEL)
VOLUMES = DataSpec("volume", (1, 4, 5, 6), "uint8", HALF, HALF, channel_axis=False)
SPECS = {
    "pictures": PICTURES,
    "channels first": CHANNELS_FIRST,
    "grey": GREY,
    "signals": SIGNALS,
    "points": POINTS,
    "volumes": VOLUMES,
}


def samples(spec: DataSpec, n: int = 4) -> np.ndarray:
    """In the data's units, by the spec's own ``to_data``."""
    return spec.to_data(torch.from_numpy(RNG.normal(size=(n, *spec.shape)) * 0.5))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_npz_and_npy_hold_the_data_unchanged(spec: DataSpec, tmp_path: Path) -> None:
    x = samples(spec)
    assert write(x, tmp_path / "a.npz", spec) == [tmp_path / "a.npz"]
    write(x, tmp_path / "a.npy", spec)
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["arr_0"]
        held = archive["arr_0"]
    expected = x
    if spec is CHANNELS_FIRST:
        expected = x.transpose(0, 2, 3, 1)
    if spec is GREY:
        expected = x[..., None]
    assert held.dtype == np.dtype(spec.dtype) == np.load(tmp_path / "a.npy").dtype
    np.testing.assert_array_equal(held, expected)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)


def test_npz_labels_come_with_their_names(tmp_path: Path) -> None:
    write(samples(PICTURES), tmp_path / "a.npz", PICTURES, labels=[2, 0, -1, 1])
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["label"].tolist() == [2, 0, -1, 1]
        assert archive["classes"].tolist() == list(LABEL["label"].names)


@pytest.mark.parametrize("spec", [POINTS, SIGNALS], ids=["points", "signals"])
def test_csv_reads_back_to_equal_numbers(spec: DataSpec, tmp_path: Path) -> None:
    x = samples(spec, 20)
    write(x, tmp_path / "a.csv", spec, labels=[0, 1] * 10)
    with (tmp_path / "a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*csv_header(spec), "label"]
    assert [row[-1] for row in rows] == ["flags", "T-shirt/top"] * 10
    read = np.array([row[:-1] for row in rows]).astype(spec.dtype).reshape(x.shape)
    assert read.tobytes() == x.tobytes()


def test_csv_headers_are_in_the_arrays_order() -> None:
    assert csv_header(POINTS) == ["x0", "x1", "x2"]
    assert csv_header(DataSpec("points", (2,), channels=("age", "height"))) == ["age", "height"]
    assert csv_header(SIGNALS)[:3] == ["MLII_t0", "V5_t0", "MLII_t1"]
    assert csv_header(DataSpec("signal", (2, 5)))[4:6] == ["channel0_t4", "channel1_t0"]
    assert csv_header(DataSpec("signal", (1, 3))) == ["t0", "t1", "t2"]


def test_png_is_the_grid_and_one_picture_is_itself(tmp_path: Path) -> None:
    x = samples(PICTURES, 6)
    write(x, tmp_path / "a.png", PICTURES)
    with Image.open(tmp_path / "a.png") as read:
        assert read.tobytes() == picture_grid(x).tobytes()
    write(x[:1], tmp_path / "one.png", PICTURES)
    with Image.open(tmp_path / "one.png") as read:
        np.testing.assert_array_equal(np.asarray(read), x[0])


def test_a_folder_of_pictures_carries_classes(tmp_path: Path) -> None:
    x = samples(PICTURES)
    files = write(x, tmp_path / "new" / "folder", PICTURES, labels=np.array([0, 1, -1, 2]))
    assert [file.name for file in files] == [
        "000000_flags.png",
        "000001_T-shirt-top.png",
        "000002.png",
        "000003_dogs.png",
    ]
    for file, picture in zip(files, x):
        with Image.open(file) as read:
            np.testing.assert_array_equal(np.asarray(read), picture)
    with pytest.raises(UserError, match="already holds samples"):
        write(x, tmp_path / "new" / "folder", PICTURES)


def test_folders_of_other_kinds(tmp_path: Path) -> None:
    x = samples(SIGNALS)
    signal, *_ = write(x, tmp_path / "signals", SIGNALS)
    assert signal.read_text().splitlines()[0] == "MLII,V5"
    np.testing.assert_array_equal(np.loadtxt(signal, delimiter=",", skiprows=1, dtype=np.float32), x[0])
    x = samples(VOLUMES)
    np.testing.assert_array_equal(np.load(write(x, tmp_path / "volumes", VOLUMES)[3]), x[3])
    x = samples(GREY)
    with Image.open(write(x, tmp_path / "grey", GREY)[1]) as read:
        assert read.mode == "L"
        np.testing.assert_array_equal(np.asarray(read), x[1])
    x = samples(POINTS)
    np.testing.assert_array_equal(np.loadtxt(write(x, tmp_path / "points", POINTS)[2], delimiter=",", skiprows=1), x[2])


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_every_kind_in_every_form(spec: DataSpec, suffix: str, tmp_path: Path) -> None:
    """A form that cannot hold a kind says so beforehand; every other leaves exactly the file asked for."""
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv" and spec.kind not in ("points", "signal"):
        with pytest.raises(UserError, match="points or signals"):
            check_path(path, spec)
        return
    assert write(samples(spec), path, spec) == list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_trajectory_becomes_an_animation_that_ends_with_the_samples(
    spec: DataSpec, suffix: str, tmp_path: Path
) -> None:
    states = [samples(spec) for _ in range(4)]
    x = samples(spec)
    write(x, tmp_path / f"a{suffix}", spec, trajectory=states)
    with Image.open(tmp_path / f"a{suffix}") as read:
        assert read.n_frames == 5  # type: ignore[attr-defined]
        read.seek(4)
        last = np.asarray(read.convert("RGB"), dtype=int)
    drawn = [np.asarray(render(state, spec, like=x, small=True), dtype=int) for state in (*states, x)]
    assert np.argmin([((last - picture) ** 2).sum() for picture in drawn]) == 4
    write(x, tmp_path / f"b{suffix}", spec, trajectory=[*states, x])
    with Image.open(tmp_path / f"b{suffix}") as read:
        assert read.n_frames == 5  # type: ignore[attr-defined]


def test_what_a_user_gets_wrong(tmp_path: Path) -> None:
    x = samples(PICTURES)
    with pytest.raises(UserError, match=r"\.tiff.*did you mean|known"):
        check_path(tmp_path / "a.tiff", PICTURES)
    with pytest.raises(UserError, match=r"did you mean \.png"):
        check_path(tmp_path / "a.pngg", PICTURES)
    with pytest.raises(UserError, match="no samples"):
        write(x[:0], tmp_path / "a.png", PICTURES)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        check_path(tmp_path / "file" / "a.png", PICTURES)
    with pytest.raises(UserError, match="is a file"):
        check_path(tmp_path / "file", PICTURES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="permission denied"):
        check_path(tmp_path / "new" / "a.png", PICTURES)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")

    def full(file: object, *rest: object, **options: object) -> None:
        file.write(b"new")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="No space left"):
        write(samples(PICTURES), path, PICTURES)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_too_many_pictures_are_cut_and_said() -> None:
    x = np.zeros((500, 4, 4, 1), dtype=np.uint8)
    spec = DataSpec("image", (1, 4, 4), "uint8", HALF, HALF, channels_last=True)
    cut, whole = np.asarray(render(x, spec)), np.asarray(render(x[:400], spec))
    np.testing.assert_array_equal(cut[: len(whole)], whole)
    assert cut[len(whole) :].min() < 200


def test_classes_that_come_in_rows_name_the_rows() -> None:
    assert runs(list("aabbcc")) == 2
    assert runs(list("aaabbbccc")) == 3
    assert [runs(list(names)) for names in ("aabbc", "abcabc", "aabbb", "aaaa", "a", "abba")] == [None] * 6
    x = np.full((6, 32, 32, 3), 255, dtype=np.uint8)
    spec = DataSpec("image", (3, 32, 32), "uint8", HALF * 3, HALF * 3, channels_last=True, conditions=LABEL)
    assert (
        render(x, spec, [0, 0, 1, 1, 2, 2]).tobytes()
        == picture_grid(x, 2, row_labels=list(LABEL["label"].names)).tobytes()
    )


def test_class_names() -> None:
    assert class_names([0, 2, -1, 7], PICTURES) == ["flags", "dogs", "", "7"]
    assert class_names(["a", "b"], PICTURES) == ["a", "b"]
    assert class_names(np.array([1, 0]), CHANNELS_FIRST) == ["1", "0"]


def test_units_become_bytes() -> None:
    unit = DataSpec("image", (1, 1, 3), offset=(0.5,), scale=(0.5,), channel_axis=False)
    assert as_bytes(np.array([[[0, 0.5, 1]]], np.float32), unit).ravel().tolist() == [0, 128, 255]
    deep = DataSpec("image", (1, 1, 3), "uint16", offset=(2047.5,), scale=(2047.5,), channel_axis=False)
    assert as_bytes(np.array([[[0, 1365, 4095]]], np.uint16), deep).ravel().tolist() == [0, 85, 255]
    measured = DataSpec("volume", (1, 1, 1, 4), "int16", offset=(100,), scale=(40,), channel_axis=False)
    assert as_bytes(np.array([[[[0, 100, 150, 200]]]], np.int16), measured).ravel().tolist() == [0, 128, 191, 255]


def test_captions_name_samples_and_lie_beside_them(tmp_path: Path) -> None:
    from unstir.data import DataConfig, load

    x = samples(PICTURES)
    captions = ["a red heart", "", 'dots/and "quotes"', "é " * 200]
    files = write(x, tmp_path / "folder", PICTURES, captions=captions)
    assert [file.name for file in files[:3]] == ["000000_a-red-heart.png", "000001.png", "000002_dots-and-quotes.png"]
    assert len(files[3].name) < 80
    read = load(DataConfig(source=str(tmp_path / "folder"), cache=str(tmp_path / "cache")))
    assert read.captions == captions
    write(x, tmp_path / "a.npz", PICTURES, captions=captions)
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["text"].tolist() == captions
        assert "label" not in archive
    write(x, tmp_path / "labelled", PICTURES, labels=[0, 1, 2, 0], captions=captions)
    assert (tmp_path / "labelled" / "000000_flags.png").is_file()
    with pytest.raises(ValueError, match="3 captions for 4 samples"):
        write(x, tmp_path / "b.npz", PICTURES, captions=captions[:3])
