"""What the axes and keys of arrays mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unstir.data import DataConfig, Dataset, load
from unstir.errors import UserError


def saved(tmp_path: Path, options: dict[str, Any] | None = None, **arrays: Any) -> Dataset:
    np.savez(tmp_path / "a.npz", **arrays)
    return load(DataConfig(source=str(tmp_path / "a.npz"), **(options or {})))


def in_data_units(data: Dataset) -> np.ndarray[Any, Any]:
    """What networks see of all samples, (N, C, ...), in the data's own units."""
    model = data.batch(np.arange(len(data)))[0].double().numpy()
    per_channel = (-1, *[1] * (model.ndim - 2))
    return np.asarray(model * np.reshape(data.spec.scale, per_channel) + np.reshape(data.spec.offset, per_channel))


F4, U1 = np.float32, np.uint8
AXES = [
    ((20,), F4, "points", (1,)),
    ((20, 2), F4, "points", (2,)),
    ((20, 32), F4, "points", (32,)),
    ((20, 33), F4, "signal", (1, 33)),
    ((20, 256, 2), F4, "signal", (2, 256)),
    ((20, 2, 256), F4, "signal", (2, 256)),
    ((20, 1000, 12), F4, "signal", (12, 1000)),
    ((20, 12, 1000), F4, "signal", (12, 1000)),
    ((20, 28, 28), F4, "image", (1, 28, 28)),
    ((20, 28, 30), U1, "image", (1, 28, 30)),
    ((20, 10, 100), U1, "image", (1, 10, 100)),  # bytes in two axes are pictures, however narrow
    ((20, 32, 24, 3), U1, "image", (3, 32, 24)),
    ((20, 3, 32, 24), U1, "image", (3, 32, 24)),
    ((20, 1, 28, 28), F4, "image", (1, 28, 28)),
    ((20, 8, 32, 32), F4, "image", (8, 32, 32)),  # latents
    ((20, 12, 16, 20), F4, "volume", (1, 12, 16, 20)),
    ((20, 2, 12, 16, 20), F4, "volume", (2, 12, 16, 20)),
    ((20, 12, 16, 20, 2), F4, "volume", (2, 12, 16, 20)),
]


@pytest.mark.parametrize(("shape", "dtype", "kind", "model_shape"), AXES)
def test_axes(tmp_path: Path, shape: tuple[int, ...], dtype: Any, kind: str, model_shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    data = saved(tmp_path, x=x)
    assert (data.spec.kind, data.spec.shape) == (kind, model_shape)
    channels_last = x.shape[1:] == (*model_shape[1:], model_shape[0])
    expected = np.moveaxis(x, -1, 1) if channels_last else x.reshape(20, *model_shape)
    np.testing.assert_allclose(in_data_units(data), expected, atol=1e-3)
    back = data.spec.to_data(data.batch(np.arange(20))[0])
    assert back.shape == (
        x.shape if kind != "image" or x.ndim == 4 else (*x.shape, 1)
    )  # pictures are written (N, H, W, C)
    np.testing.assert_allclose(back.reshape(x.shape), x, atol=1e-3)


def test_channels_are_where_they_should_be(tmp_path: Path) -> None:
    x = np.zeros((2, 8, 9, 3), U1)
    x[1, 2, 5] = [10, 20, 30]
    model, _ = saved(tmp_path, x=x).batch(np.array([1]))
    assert ((model[0, :, 2, 5] + 1) * 127.5).tolist() == pytest.approx([10, 20, 30], abs=1e-4)


def test_kind_overrides(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((10, 24, 16)).astype(F4)
    for kind, given, expected in (
        ("signal", x, x.transpose(0, 2, 1)),
        ("points", x, x.reshape(10, 384)),
        ("signal", x[:, :, 0], x[:, None, :, 0]),
        ("image", x[:, :, :3], x[:, None, :, :3]),
    ):
        data = saved(tmp_path, {"kind": kind}, x=given)
        assert (data.spec.kind, data.spec.shape) == (kind, expected.shape[1:])
        np.testing.assert_allclose(in_data_units(data), expected, atol=1e-5)
    with pytest.raises(UserError, match=r"shape \(10, 24, 16\) cannot hold volumes"):
        saved(tmp_path, {"kind": "volume"}, x=x)


@pytest.mark.parametrize("key", ["x", "arr_0", "images", "data", "anything"])
def test_the_data_is_found_under_its_usual_keys(tmp_path: Path, key: str) -> None:
    x = np.arange(80, dtype=F4).reshape(10, 8)
    data = saved(tmp_path, **{key: x, "fs": np.array(360)})
    np.testing.assert_array_equal(data.x, x)
    assert any("'anything'" in note for note in data.report.notes) == (key == "anything")


def test_integer_labels_with_names(tmp_path: Path) -> None:
    x = np.zeros((4, 8, 8, 3), U1)
    data = saved(tmp_path, x=x, y=np.array([2, 0, -1, 0], np.int8), classes=["cat", "dog", "eel"])
    assert data.spec.conditions["label"].names == ("cat", "dog", "eel")
    assert data.conditions["label"].tolist() == [2, 0, -1, 0]  # type: ignore[union-attr]
    assert data.conditions["label"].dtype == np.int64  # type: ignore[union-attr]
    with pytest.raises(UserError, match="y goes from 0 to 3, but there are 2 class names"):
        saved(tmp_path, x=x, y=[0, 3, 1, 1], names=["a", "b"])
    with pytest.raises(UserError, match=r"y has shape \(3,\), but there are 4 samples"):
        saved(tmp_path, x=x, y=[0, 1, 1])


def test_numbers_with_gaps_are_renumbered_and_keep_their_names(tmp_path: Path) -> None:
    data = saved(tmp_path, x=np.zeros((5, 8, 8), U1), labels=[100, 7, -1, 100, 2000])
    assert data.spec.conditions["label"].names == ("7", "100", "2000")
    assert data.conditions["label"].tolist() == [1, 0, -1, 1, 2]  # type: ignore[union-attr]


def test_string_labels_and_names_of_samples(tmp_path: Path) -> None:
    x = np.zeros((3, 8, 8), U1)
    data = saved(tmp_path, x=x, category=["b", "a", "b"], name=["one", "two", "three"], subcategory=["q", "r", "s"])
    assert data.spec.conditions["label"].names == ("a", "b")
    assert data.conditions["label"].tolist() == [1, 0, 1]  # type: ignore[union-attr]
    assert data.conditions["text"] == ["one", "two", "three"]
    assert set(data.batch(np.arange(3))[1]) == {"label"}  # captions have no tensor


def test_float_targets_are_a_vector(tmp_path: Path) -> None:
    y = np.random.default_rng(0).standard_normal((6, 3))
    data = saved(tmp_path, x=np.zeros((6, 8, 8), U1), y=y, other=np.ones((6, 2)))
    assert set(data.conditions) == {"y"}
    assert (data.spec.conditions["y"].kind, data.spec.conditions["y"].size) == ("vector", 3)
    np.testing.assert_allclose(data.batch(np.array([2]))[1]["y"], ((y - y.mean(0)) / y.std(0))[[2]], rtol=1e-5)


def test_transparency_is_laid_on_the_background(tmp_path: Path) -> None:
    x = np.zeros((2, 8, 8, 4), U1)
    x[:, :, :4] = [200, 100, 0, 255]
    x[:, :, 4:] = [200, 100, 0, 51]  # a fifth
    on_white = saved(tmp_path, x=x)
    assert on_white.x[0, 0, 0].tolist() == [200, 100, 0]
    assert on_white.x[0, 0, 7].tolist() == [244, 224, 204]  # 255 - (255 - c) / 5
    assert on_white.report.notes
    assert saved(tmp_path, {"background": "#000000"}, x=x).x[0, 0, 7].tolist() == [40, 20, 0]
    assert saved(tmp_path, {"channels": "rgba"}, x=x).spec.shape == (4, 8, 8)
    np.testing.assert_array_equal(
        saved(tmp_path, {"channels": "rgba"}, x=x.transpose(0, 3, 1, 2)).x, x.transpose(0, 3, 1, 2)
    )
    with pytest.raises(UserError, match="not a colour"):
        saved(tmp_path, {"background": "whitish"}, x=x)


def test_grey_agrees_with_pillow(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=U1)
    expected = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in x])[..., None]
    np.testing.assert_array_equal(saved(tmp_path, {"channels": "gray"}, x=x).x, expected)
    np.testing.assert_array_equal(saved(tmp_path, {"channels": "rgb"}, x=expected[..., 0]).x, expected.repeat(3, -1))
    with pytest.raises(UserError, match="only for uint8 pictures"):
        saved(tmp_path, {"channels": "gray"}, x=x.astype(F4))


def test_resizing_to_half_is_the_mean_of_each_block(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 16, 8, 3), dtype=U1)
    blocks = x.reshape(3, 8, 2, 4, 2, 3).astype(float).mean((2, 4))
    small = saved(tmp_path, {"size": (8, 4)}, x=x)
    assert small.spec.shape == (3, 8, 4)
    np.testing.assert_array_equal(small.x, np.floor(blocks + 0.5))
    floats = saved(tmp_path, {"size": (8, 4)}, x=x.transpose(0, 3, 1, 2).astype(F4) / 255)
    np.testing.assert_allclose(floats.x, blocks / 255, atol=1e-6)
    with pytest.raises(UserError, match="only pictures are resized"):
        saved(tmp_path, {"size": (8,)}, x=np.zeros((3, 64, 2)))


def test_no_pickles_and_no_nonsense(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Python objects, which are never unpickled"):
        saved(tmp_path, x=np.array([1, "a", None], dtype=object))
    np.save(tmp_path / "o.npy", np.array([1, "a", None], dtype=object))
    with pytest.raises(UserError, match="Python objects, which are never unpickled"):
        load(DataConfig(source=str(tmp_path / "o.npy")))
    with pytest.raises(UserError, match="complex128, not plain numbers"):
        saved(tmp_path, x=np.zeros((3, 4), complex))
    with pytest.raises(UserError, match="empty array"):
        saved(tmp_path, x=np.zeros((0, 4)))
    for name in ("a.npz", "a.npy"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not really")
        with pytest.raises(UserError, match="cannot read"):
            load(DataConfig(source=str(tmp_path / name)))


def test_npy_is_mapped_not_read(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=U1)
    np.save(tmp_path / "x.npy", x)
    data = load(DataConfig(source=str(tmp_path / "x.npy")))
    assert isinstance(data.x, np.memmap)
    np.testing.assert_array_equal(data.spec.to_data(data.batch(np.array([5, 1]))[0]), x[[5, 1]])
