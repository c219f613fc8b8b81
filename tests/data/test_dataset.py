"""Units: to the model and back, and what batches hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unstir.data import Condition, DataConfig, Dataset, DataSpec, load
from unstir.data.measure import measure
from unstir.errors import UserError


def saved(tmp_path: Path, x: np.ndarray[Any, Any], **options: Any) -> Dataset:
    np.save(tmp_path / "x.npy", x)
    return load(DataConfig(source=str(tmp_path / "x.npy"), **options))


@pytest.mark.parametrize("shape", [(256, 4, 6, 3), (256, 3, 7, 8), (256, 5, 6)])
def test_every_byte_survives_the_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(-1, *[1] * (len(shape) - 1)), shape)
    data = saved(tmp_path, np.ascontiguousarray(x), kind="image")
    model, _ = data.batch(np.arange(256))
    assert model.dtype == torch.float32
    assert model.is_contiguous()
    assert model[0].unique().tolist() == [-1.0]
    assert model[255].unique().tolist() == [1.0]
    np.testing.assert_array_equal(data.spec.to_data(model), data.x)


def test_pictures_are_scaled_by_their_dtype_not_by_their_values(tmp_path: Path) -> None:
    data = saved(tmp_path, np.full((3, 8, 8, 3), 51, np.uint8))
    assert (data.spec.offset, data.spec.scale) == ((127.5,) * 3, (127.5,) * 3)
    assert data.batch(np.array([0]))[0].unique().item() == pytest.approx(51 / 127.5 - 1)


def test_12_bit_pictures_are_not_dark_16_bit_pictures(tmp_path: Path) -> None:
    x = np.array([0, 4095], np.uint16).repeat(8 * 8).reshape(2, 8, 8)
    data = saved(tmp_path, x)
    model, _ = data.batch(np.arange(2))
    assert (model.min().item(), model.max().item()) == (-1.0, 1.0)
    assert saved(tmp_path, x * 16).spec.offset == (32767.5,)


def test_float_pictures_between_0_and_1(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 4 * 8 * 8, dtype=np.float32).reshape(4, 8, 8, 1)
    assert (saved(tmp_path, x).spec.offset, saved(tmp_path, x).spec.scale) == ((0.5,), (0.5,))
    assert saved(tmp_path, 2 * x - 1).spec.offset == (0.0,)
    assert saved(tmp_path, 16 * x).spec.offset[0] == pytest.approx(8)  # neither: standardised


def test_signals_are_standardised_channel_by_channel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 64, 2)) * [3, 0.01] + [1e6, -2]
    data = saved(tmp_path, x)
    np.testing.assert_allclose(data.spec.offset, x.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(data.spec.scale, x.std((0, 1)), rtol=1e-9)
    model, _ = data.batch(np.arange(50))
    expected = ((x - x.mean((0, 1))) / x.std((0, 1))).transpose(0, 2, 1)
    np.testing.assert_allclose(model.numpy(), expected, atol=2e-6)  # the offset of 1e6 costs float32 nothing
    assert data.spec.std == pytest.approx(1.0)
    np.testing.assert_allclose(data.spec.to_data(model), x, rtol=1e-6)


def test_points_keep_their_geometry_unless_units_differ(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 2)) * [1, 3]
    spec = saved(tmp_path, x).spec
    assert spec.scale[0] == spec.scale[1] == pytest.approx(np.sqrt((x.std(0) ** 2).mean()))
    assert spec.std == pytest.approx(1.0)
    table = saved(tmp_path, x * [1, 1000]).spec
    np.testing.assert_allclose(table.scale, (x * [1, 1000]).std(0))


def test_constant_channels_do_not_divide_by_zero(tmp_path: Path) -> None:
    x = np.stack([np.arange(10.0), np.full(10, 0.1)], axis=1)
    data = saved(tmp_path, x)
    model, _ = data.batch(np.arange(10))
    assert model[:, 1].tolist() == [0.0] * 10
    np.testing.assert_allclose(data.spec.to_data(model), x, atol=1e-6)


def test_std_of_pictures_is_that_of_the_data_in_model_units(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
    x[..., 0] //= 4
    assert saved(tmp_path, x).spec.std == pytest.approx((x / 127.5 - 1).std(), rel=1e-9)


def test_gaps_are_refused_with_their_number_and_place(tmp_path: Path) -> None:
    x = np.zeros((20, 64), np.float32)
    x[7, 3], x[9, 0], x[9, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(UserError, match=r"3 numbers are NaN or infinite, the first in sample 7"):
        saved(tmp_path, x)


def test_measure_against_numpy_in_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unstir.data.measure.CHUNK", 100)
    x = np.random.default_rng(0).standard_normal((57, 3, 11)) + 1e7
    found = measure(x)
    np.testing.assert_allclose(found.mean, x.mean((0, 2)), rtol=1e-14)
    np.testing.assert_allclose(found.std, x.std((0, 2)), rtol=1e-8)
    np.testing.assert_array_equal(found.low, x.min((0, 2)))
    np.testing.assert_array_equal(found.high, x.max((0, 2)))
    x[31, 2, 5] = np.nan
    found = measure(x)
    assert (found.not_finite, found.first_not_finite) == (1, 31)
    np.testing.assert_allclose(found.mean, np.nanmean(x, (0, 2)), rtol=1e-14)


def test_flip_mirrors_only_the_chosen(tmp_path: Path) -> None:
    x = np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 4, 6, 1)
    data = saved(tmp_path, x)
    plain, _ = data.batch(torch.tensor([0, 1]))
    flipped, _ = data.batch(torch.tensor([0, 1]), flip=torch.tensor([False, True]))
    assert torch.equal(flipped[0], plain[0])
    np.testing.assert_array_equal(data.spec.to_data(flipped)[1], x[1, :, ::-1])


def test_batch_does_not_change_the_data_and_takes_any_order(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    data = saved(tmp_path, x)
    model, _ = data.batch(np.array([4, 4, 0]))
    np.testing.assert_allclose(data.spec.to_data(model), x[[4, 4, 0]], atol=1e-6)
    np.testing.assert_array_equal(data.x, x)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (np.float64, (9,)),
        (np.float32, (9, 300)),
        (np.int16, (9, 40, 2)),
        (">f4", (9, 2, 40)),
        (np.int64, (9, 3)),
        (bool, (9, 6, 7)),
    ],
)
def test_dtype_and_axis_order_come_back(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 2 if dtype is bool else 1000, shape).astype(dtype)
    data = saved(tmp_path, x, kind="auto" if dtype is not bool else "signal")
    back = data.spec.to_data(data.batch(np.arange(9))[0])
    assert back.shape == x.shape
    assert back.dtype == (np.uint8 if dtype is bool else np.dtype(dtype).newbyteorder("="))
    np.testing.assert_allclose(
        back.astype(float), x.astype(float), rtol=1e-6, atol=2e-3 if back.dtype.kind == "f" else 0
    )


def test_spec_survives_plain_values(tmp_path: Path) -> None:
    conditions = {
        "label": Condition("class", 3, ("a", "b", "c")),
        "age": Condition("vector", 1, ("age",)),
        "text": Condition("text", 0, ("a hat", "é"), shape=(7, 16), encoder="minilm"),
        "edges": Condition("grid", 0, shape=(1, 8)),
    }
    spec = DataSpec("signal", (2, 8), "int16", (1.0, 2.0), (3.0, 4.0), 0.5, ("I", "II"), True, conditions, False)
    assert DataSpec.from_dict(spec.to_dict()) == spec


def test_fingerprint_follows_content_and_options_not_the_place(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    first = saved(tmp_path, x)
    (tmp_path / "elsewhere").mkdir()
    assert saved(tmp_path / "elsewhere", x).fingerprint == first.fingerprint
    assert saved(tmp_path, x, flip=True).fingerprint == first.fingerprint
    assert saved(tmp_path, x, size=(4, 4)).fingerprint != first.fingerprint
    x[2, 3, 4, 1] ^= 1
    assert saved(tmp_path, x).fingerprint != first.fingerprint


def test_class_by_name_and_number() -> None:
    shoes = Condition("class", 3, ("Sandal", "Shirt", "Ankle boot"))
    assert [shoes.index(word) for word in ("Shirt", "shirt", "1", " ankle boot ")] == [1, 1, 1, 2]
    assert shoes.index(2) == 2
    with pytest.raises(UserError, match=r"no class 'shrit' among the 3 classes .*did you mean Shirt"):
        shoes.index("shrit")
    with pytest.raises(UserError, match=r"no class '3'"):
        shoes.index("3")
    years = Condition("class", 2, ("1", "0"))
    assert years.index("1") == 0  # a name wins over a number
    with pytest.raises(UserError, match="give its number"):
        Condition("class", 3).index("a")


def test_conditions_parse_what_users_type() -> None:
    vector = Condition("vector", 2, ("age", "height"))
    assert vector.parse("0.5, -2").tolist() == [0.5, -2.0]
    assert Condition("class", 3).parse("2").dtype == torch.int64
    for bad, message in [("1", "holds 1 numbers, and the condition takes 2"), ("1,x", "not a list of numbers")]:
        with pytest.raises(UserError, match=message):
            vector.parse(bad)
    with pytest.raises(UserError, match="trained without its captions"):
        Condition("text", 0).parse("a cat")
    assert Condition("text", 256, shape=(4,), encoder="bytes").parse("ab").tolist() == [97, 98, -1, -1]
    with pytest.raises(UserError, match=r"a grid of numbers \[1, 2, 2\] comes from a file"):
        Condition("grid", 0, shape=(1, 2, 2)).parse("0")


def test_labels_can_be_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 8, 8, 3), np.uint8), y=[0, 1, 1, 0])
    config = DataConfig(source=str(tmp_path / "a.npz"))
    assert load(config).batch(np.array([1, 3]))[1]["label"].tolist() == [1, 0]
    without = load(dataclasses.replace(config, labels=False))
    assert not without.conditions
    assert not without.spec.conditions


def test_vectors_reach_the_model_standardised_and_gaps_stay_gaps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    context = np.stack([rng.normal(70, 12, 200), rng.normal(5e4, 1e4, 200)], 1).astype(np.float32)
    context[3, 1] = np.nan
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(200, 2)).astype(np.float32), context=context)
    dataset = load(DataConfig(source=str(tmp_path / "x.npz")))
    (name,) = dataset.spec.conditions
    _, cond = dataset.batch(np.arange(200))
    seen = cond[name].numpy()
    assert np.isnan(seen[3]).tolist() == [False, True]
    np.testing.assert_allclose(np.nanmean(seen, 0), 0, atol=1e-4)
    np.testing.assert_allclose(np.nanstd(seen, 0), 1, rtol=1e-4)
    again = DataSpec.from_dict(dataset.spec.to_dict())
    assert again == dataset.spec
    typed = again.conditions[name].to_model(again.conditions[name].parse(f"{context[0, 0]},{context[0, 1]}"))
    np.testing.assert_allclose(typed.numpy(), seen[0], rtol=1e-4)


@pytest.mark.parametrize("make", [
    lambda rng: rng.integers(0, 256, (9, 8, 8, 3)).astype(np.uint8),
    lambda rng: rng.random((9, 8, 8, 3)).astype(np.float32),
    lambda rng: (255 * rng.random((9, 8, 8, 3))).astype(np.float32),
    lambda rng: rng.integers(-1000, 3000, (9, 8, 8)).astype(np.int16),
    lambda rng: rng.normal(size=(9, 8, 8, 8)).astype(np.float32),
])  # fmt: skip
def test_bounds_hold_the_data_or_are_not_there(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Samples are clipped to the bounds: no value that the data have may lie outside."""
    np.save(tmp_path / "x.npy", make(np.random.default_rng(0)))
    dataset = load(DataConfig(source=str(tmp_path / "x.npy")))
    x, _ = dataset.batch(np.arange(9))
    if dataset.spec.bounds:
        assert dataset.spec.bounds[0] <= float(x.min()) <= float(x.max()) <= dataset.spec.bounds[1]
        assert float(x.max()) > 0.9 * dataset.spec.bounds[1]
    else:
        assert float(x.max()) > 1.2  # standardised: there would have been something to cut off
