"""The simple spaces against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unstir.data import DataConfig, Dataset, load
from unstir.errors import UserError
from unstir.evaluation.features import DEFAULTS, FEATURES, FeatureSpace, feature_space
from unstir.evaluation.features.simple import SILENCE, as_tensor, band_edges, log_power
from unstir.evaluation.samples import rows_of

CPU = torch.device("cpu")


def saved(folder: Path, x: np.ndarray[Any, Any], **config: Any) -> Dataset:
    np.savez(folder / "d.npz", x=x)
    return load(DataConfig(source=str(folder / "d.npz"), cache=str(folder), **config))


def space(dataset: Dataset, name: str | None = None) -> FeatureSpace:
    return feature_space(name, dataset, CPU, Path("unused"))


def test_coordinates_are_standardised_with_one_scale(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32) * [3, 1] + [10, -4]
    data = saved(tmp_path, x.astype(np.float32))
    found = space(data)(x[:7].astype(np.float32)).vectors
    scale = math.sqrt(x.var(0).mean())
    np.testing.assert_allclose(found, (x[:7] - x.mean(0)) / scale, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32


def test_white_noise_has_log_power_0_and_a_sine_has_its_own() -> None:
    noise = torch.randn(4000, 1, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bands = log_power(noise).exp().mean(0)[0]
    np.testing.assert_allclose(bands, 1, atol=0.08)  # the lowest band is one frequency: 1 / sqrt(4000) = 0.016
    edges, length, k, amplitude = band_edges(256), 256, 37, 3.0
    sine = amplitude * torch.sin(2 * math.pi * k * torch.arange(length, dtype=torch.float64) / length + 0.3)
    found = log_power(sine[None, None])[0, 0]
    band = next(i for i in range(len(edges) - 1) if edges[i] <= k < edges[i + 1])
    expected = np.full(len(edges) - 1, math.log(SILENCE))
    expected[band] = math.log(SILENCE + amplitude**2 * length / 4 / (edges[band + 1] - edges[band]))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 50, 256, 1000])
def test_bands_cover_all_frequencies_but_the_mean_once(length: int) -> None:
    edges = band_edges(length)
    assert edges[0] == 1
    assert edges == sorted(set(edges))
    assert edges[-1] == length // 2 + 1 or edges == [1]
    assert (len(edges) == 1) == (length == 1)
    # So the bands of a signal without a mean hold all of its power (Parseval), every frequency but the last of an even length twice.
    x = torch.randn(1, 1, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x -= x.mean()
    widths = torch.tensor([high - low for low, high in itertools.pairwise(edges)])
    power = float((widths * (log_power(x)[0, 0].exp() - SILENCE)).sum()) * 2
    nyquist = float((x * (-1) ** torch.arange(length)).sum()) ** 2 / length if length % 2 == 0 else 0.0
    assert power - nyquist == pytest.approx(float(x.square().sum()), abs=1e-9)


def test_spectrum_is_means_of_pieces_and_log_power(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(20, 128, 2)).astype(np.float32).cumsum(1)
    data = saved(tmp_path, x)
    found = space(data)(x[:3]).vectors
    standard = ((x[:3] - x.mean((0, 1))) / x.std((0, 1))).transpose(0, 2, 1)  # (3, 2, 128)
    bands = len(band_edges(128)) - 1
    assert found.shape == (3, 2 * (64 + bands))
    parts = found.reshape(3, 2, -1)
    np.testing.assert_allclose(parts[..., :64], standard.reshape(3, 2, 64, 2).mean(-1), rtol=1e-3, atol=1e-4)
    power = np.abs(np.fft.rfft(standard)) ** 2 / 128
    edges = band_edges(128)
    by_hand = [np.log(SILENCE + power[..., a:b].mean(-1)) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(parts[..., 64:], np.stack(by_hand, -1), atol=2e-3)


def test_spectrum_hears_what_samples_do_not_show(tmp_path: Path) -> None:
    """Noise and a hum of random phase have equal means and variances at every moment; they do not sound alike."""
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(300, 96)).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, size=(300, 1))
    hum = (math.sqrt(2) * np.sin(2 * np.pi * 20 * np.arange(96) / 96 + phase)).astype(np.float32)
    data = saved(tmp_path, noise)
    a, b = (space(data)(x).vectors[:, 64:].mean(0) for x in (noise, hum))
    assert (a - b).abs().max() > 5


def test_pixels_are_means_of_cells(tmp_path: Path) -> None:
    x = np.random.default_rng(3).integers(0, 256, size=(6, 16, 24, 3), dtype=np.uint8)
    found = space(saved(tmp_path, x), "pixels")(x).vectors
    cells = x.reshape(6, 8, 2, 8, 3, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(6, -1)  # channels first
    np.testing.assert_allclose(found, cells / 127.5 - 1, atol=1e-5)


def test_pixels_of_small_gray_and_many_channelled_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    small = rng.integers(0, 256, size=(5, 6, 6), dtype=np.uint8)
    for x in (small, small[..., None]):  # without and with a channel axis
        np.testing.assert_allclose(
            space(saved(tmp_path, small), "pixels")(x).vectors, small.reshape(5, -1) / 127.5 - 1, atol=1e-6
        )
    many = rng.integers(0, 256, size=(3, 8, 8, 5), dtype=np.uint8)
    data = saved(tmp_path, many, kind="image")
    assert data.spec.shape == (5, 8, 8)
    found = space(data, "pixels")(rows_of(data, np.arange(3))).vectors
    np.testing.assert_allclose(found, many.transpose(0, 3, 1, 2).reshape(3, -1) / 127.5 - 1, atol=1e-6)


def test_volumes(tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(size=(4, 8, 8, 8)).astype(np.float32) * 5 + 2
    data = saved(tmp_path, x, kind="volume")
    found = space(data)(x).vectors
    cells = x.reshape(4, 4, 2, 4, 2, 4, 2).mean((2, 4, 6)).reshape(4, -1)
    np.testing.assert_allclose(found, (cells - x.mean()) / x.std(), rtol=1e-3, atol=1e-4)


def test_fingerprints_tell_units_apart(tmp_path: Path) -> None:
    x = np.random.default_rng(6).normal(size=(30, 2)).astype(np.float32)
    one = space(saved(tmp_path, x)).fingerprint
    assert space(saved(tmp_path, x)).fingerprint == one
    assert space(saved(tmp_path, 2 * x)).fingerprint != one


def test_each_kind_has_its_default_and_other_kinds_are_refused(tiny_arrays: dict[str, Path], tmp_path: Path) -> None:
    wrong = {
        "image": ["coordinates", "spectrum"],
        "signal": ["coordinates", "pixels"],
        "points": ["spectrum", "pixels"],
    }
    for kind, names in wrong.items():
        data = load(DataConfig(source=str(tiny_arrays[kind]), cache=str(tmp_path)))
        for name in [*names, *(["own"] if kind == "points" else [])]:
            with pytest.raises(UserError, match=f"holds {kind}; use --features {DEFAULTS[kind]}") as error:
                space(data, name)
            assert "\n" not in str(error.value)
    assert {DEFAULTS[kind] for kind in ("signal", "points", "volume")} <= set(FEATURES)
    with pytest.raises(UserError, match="did you mean pixels"):
        space(data, "pixel")


def test_pictures_of_floats_are_judged_as_the_bytes_of_their_files(tmp_path: Path) -> None:
    x = np.random.default_rng(7).random((6, 8, 8, 3)).astype(np.float32)
    x[0, 0, 0], x[0, 0, 1] = 0, 1
    data = saved(tmp_path, x)
    held = rows_of(data, np.arange(6))
    np.testing.assert_allclose(as_tensor(held, data.spec).movedim(1, -1), np.rint(255 * x) / 127.5 - 1, atol=1e-6)
