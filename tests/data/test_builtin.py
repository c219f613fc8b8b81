"""The data sets that come along are what they say."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from unstir.data import BUILTIN, DataConfig, load
from unstir.data.builtin import FASHION_FOLDER, GAUSSIANS_MEANS, GAUSSIANS_STD, read_idx
from unstir.errors import UserError

SHARED = Path(os.environ.get("UNSTIR_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared/data"))


def test_emoji() -> None:
    data = load(DataConfig(source="emoji"))
    label = data.spec.conditions["label"]
    assert data.x.shape == (1911, 32, 32, 3)
    counts = Counter(label.names[i] for i in data.conditions["label"])
    assert counts == {
        "People & Body": 386, "Flags": 270, "Objects": 264, "Symbols": 224, "Travel & Places": 218,
        "Smileys & Emotion": 169, "Animals & Nature": 159, "Food & Drink": 131, "Activities": 85, "Component": 5,
    }  # fmt: skip
    names = data.conditions["text"]
    assert isinstance(names, list)
    grin = data.x[names.index("grinning face")]
    assert grin[0, 0].tolist() == [255, 255, 255]  # the corner is background
    assert grin[8, 16].tolist() == pytest.approx([255, 200, 40], abs=40)  # the forehead is yellow
    heart = data.x[names.index("heavy black heart")]
    assert heart[14, 16, 0] > 200
    assert heart[14, 16, 1:].max() < 90
    assert label.index("flags") == label.names.index("Flags")


@pytest.mark.skipif(not (SHARED / "emoji_google_32.npz").exists(), reason="the shared data is not on this machine")
def test_emoji_agree_with_another_build_of_the_same_pictures() -> None:
    ours = load(DataConfig(source="emoji"))
    with np.load(SHARED / "emoji_google_32.npz") as other:
        assert list(other["name"]) == ours.conditions["text"]
        difference = np.abs(ours.x.astype(int) - other["x"])
    assert difference.mean() < 2.5  # another filter


def test_digits_agree_with_scikit_learn() -> None:
    original = pytest.importorskip("sklearn.datasets").load_digits()
    data = load(DataConfig(source="digits"))
    np.testing.assert_array_equal(np.rint(data.x[..., 0] * (16 / 255)), original.images)
    np.testing.assert_array_equal(data.conditions["label"], original.target)
    assert data.spec.conditions["label"].names == tuple("0123456789")


@pytest.mark.skipif(not FASHION_FOLDER.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    data = load(DataConfig(source="fashion-mnist", size=(14, 14)))
    assert data.x.shape == (60000, 14, 14, 1)
    assert np.bincount(np.asarray(data.conditions["label"])).tolist() == [6000] * 10
    assert data.spec.conditions["label"].index("shirt") == 6
    raw = read_idx(FASHION_FOLDER / "train-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(data.x[5, ..., 0], np.floor(raw[5].reshape(14, 2, 14, 2).mean((1, 3)) + 0.5))


@pytest.mark.skipif(not FASHION_FOLDER.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_has_a_test_split() -> None:
    train, test = (load(DataConfig(source="fashion-mnist", split=split)) for split in ("train", "test"))
    assert np.bincount(np.asarray(test.conditions["label"])).tolist() == [1000] * 10
    np.testing.assert_array_equal(test.x[..., 0], read_idx(FASHION_FOLDER / "t10k-images-idx3-ubyte.gz"))
    assert test.fingerprint != train.fingerprint == load(DataConfig(source="fashion-mnist")).fingerprint
    assert (test.report.source, train.report.source) == ("fashion-mnist (test)", "fashion-mnist")


def test_fashion_mnist_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unstir.data.builtin.FASHION_FOLDER", tmp_path / "nowhere")
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist") as error:
        load(DataConfig(source="fashion-mnist", cache=str(tmp_path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(set(BUILTIN) - {"emoji", "digits", "fashion-mnist"}))
def test_points_are_the_same_everywhere_and_in_the_plane(name: str) -> None:
    first, second = load(DataConfig(source=name)), load(DataConfig(source=name))
    assert first.x.shape == (20000, 2)
    np.testing.assert_array_equal(first.x, second.x)
    assert first.fingerprint == second.fingerprint
    assert first.spec.scale[0] == first.spec.scale[1]


def points(name: str) -> tuple[np.ndarray, np.ndarray]:
    data = load(DataConfig(source=name))
    label = data.conditions.get("label", np.zeros(len(data), int))
    return np.asarray(data.x, dtype=np.float64), np.asarray(label)


def test_gaussians_have_the_known_density() -> None:
    x, label = points("gaussians")
    for i in range(8):
        cluster = x[label == i]
        np.testing.assert_allclose(cluster.mean(0), GAUSSIANS_MEANS[i], atol=4 * GAUSSIANS_STD / np.sqrt(len(cluster)))
        np.testing.assert_allclose(np.cov(cluster.T), GAUSSIANS_STD**2 * np.eye(2), atol=1e-3)


def test_checkerboard_is_uniform_on_black_squares() -> None:
    x, _ = points("checkerboard")
    squares = np.floor(x + 2).astype(int)
    assert ((squares >= 0) & (squares < 4)).all()
    assert (squares.sum(1) % 2 == 0).all()
    counts = np.unique(squares, axis=0, return_counts=True)[1]
    assert len(counts) == 8
    assert np.abs(counts - 2500).max() < 5 * np.sqrt(2500)


def test_swiss_roll_is_a_standardised_spiral() -> None:
    x, _ = points("swiss-roll")
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-6)
    assert x.std() == pytest.approx(1, abs=1e-5)
    # On the arm the radius is the angle (unwrapped), 3 pi / 2 to 9 pi / 2, in one scale and around one centre.
    rng = np.random.Generator(np.random.PCG64(0))
    angle = 1.5 * np.pi * (1 + 2 * rng.random(20000))
    spiral = angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    scale = np.polyfit(x.ravel(), spiral.ravel(), 1)[0]
    rest = spiral - scale * x
    assert (rest - rest.mean(0)).std() == pytest.approx(0.25, rel=0.02)


def test_rings_circles_and_moons_lie_where_they_should() -> None:
    for name, radii in [("rings", [1, 2, 3, 4]), ("circles", [1, 0.5])]:
        x, label = points(name)
        for i, radius in enumerate(radii):
            assert np.linalg.norm(x[label == i], axis=1).mean() == pytest.approx(radius, abs=0.01)
    x, label = points("moons")
    assert np.linalg.norm(x[label == 0], axis=1).mean() == pytest.approx(1, abs=0.01)
    assert np.linalg.norm(x[label == 1] - [1, 0.5], axis=1).mean() == pytest.approx(1, abs=0.01)


def test_pinwheel_has_five_arms_a_fifth_of_a_turn_apart() -> None:
    x, label = points("pinwheel")
    turn = np.exp(2j * np.pi / 5)
    means = np.array([(x[label == i] @ [1, 1j]).mean() for i in range(5)])
    np.testing.assert_allclose(means[1:] / means[:-1], turn, atol=0.03)
