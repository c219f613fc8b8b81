"""Cached latents: what is computed freshly, computed once, and again whenever anything changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unstir.autoencoder import Autoencoder
from unstir.codec import LatentCodec
from unstir.data import DataConfig, Dataset, load
from unstir.data.latents import Computed, Latents, latents
from unstir.errors import UserError
from unstir.networks.coder import Coder
from unstir.networks.layers import depth_to_space


class Small(Coder):
    """An autoencoder with an encoder that sees more than one latent's own pixels, and knows left from right."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.latent_channels, self.channels, self.rank = 2, 2, 3, 2
        torch.manual_seed(0)
        self.down = torch.nn.Conv2d(3, 2, 4, stride=2, padding=1)
        self.up = torch.nn.Conv2d(2, 12, 3, padding=1)

    def encode(self, x: Tensor) -> Tensor:
        down: Tensor = self.down(x)
        return 5 * down + 2  # far from unit variance

    def decode(self, z: Tensor) -> Tensor:
        return depth_to_space(self.up(z), 2)


class Counted:
    """The encoder, and how many samples it was asked for."""

    def __init__(self, codec: LatentCodec) -> None:
        self.codec, self.count = codec, 0

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        self.count += len(x)
        return self.codec.raw(x)


CODEC = LatentCodec(Autoencoder(Small()), (), ())


@pytest.fixture
def pictures(tiny_arrays: dict[str, Path]) -> Dataset:
    return load(DataConfig(source=str(tiny_arrays["image"])))


def computed(
    dataset: Dataset, cache: Path, flip: bool = False, fingerprint: str = "a"
) -> tuple[Computed, int, list[tuple[int, int]]]:
    encode, told = Counted(CODEC), []
    found = latents(dataset, encode, fingerprint, flip, cache, lambda done, total: told.append((done, total)))
    return found, encode.count, told


def as_seen(dataset: Dataset, found: Computed) -> tuple[LatentCodec, Latents]:
    codec = CODEC.in_units(found.offset, found.scale)
    return codec, Latents(**{**vars(dataset), "spec": codec.latent_spec(dataset.spec), "x": found.x})


def test_cached_latents_are_those_computed_freshly(pictures: Dataset, tmp_path: Path) -> None:
    found, asked, told = computed(pictures, tmp_path, flip=True)
    assert (asked, told) == (80, [(40, 40)])
    assert found.x.shape == (40, 2, 2, 6, 5)
    assert found.x.dtype == np.float32
    fresh = CODEC.raw(pictures.samples(np.arange(40)))
    assert np.array_equal(found.x[:, 0], fresh.numpy()), "to the bit, in the same batches"
    mirrored = CODEC.raw(pictures.samples(np.arange(40), torch.ones(40, dtype=torch.bool)))
    assert np.array_equal(found.x[:, 1], mirrored.numpy())
    assert not np.allclose(found.x[:, 1], found.x[:, 0, ..., ::-1], atol=0.1), "mirrored latents are something else"


def test_they_have_unit_variance(pictures: Dataset, tmp_path: Path) -> None:
    for flip in (False, True):
        found, _, _ = computed(pictures, tmp_path, flip)
        raw = found.x.astype(np.float64).swapaxes(0, 2).reshape(2, -1)
        np.testing.assert_allclose(found.offset, raw.mean(1), rtol=1e-6)
        np.testing.assert_allclose(found.scale, raw.std(1), rtol=1e-6)
        codec, seen = as_seen(pictures, found)
        z = seen.samples(np.arange(40))
        if flip:
            z = torch.cat([z, seen.samples(np.arange(40), torch.ones(40, dtype=torch.bool))])
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)
        torch.testing.assert_close(z.std((0, 2, 3), unbiased=False), torch.ones(2), rtol=0, atol=1e-5)
        assert torch.equal(codec.encode(pictures.samples(np.arange(40))), seen.samples(np.arange(40)))


def test_a_batch_has_its_conditions_and_its_mirrored_samples(pictures: Dataset, tmp_path: Path) -> None:
    codec, seen = as_seen(pictures, computed(pictures, tmp_path, flip=True)[0])
    rows, flip = np.array([3, 3, 30]), torch.tensor([False, True, True])
    z, cond = seen.batch(rows, flip)
    x, expected = pictures.batch(rows, flip)
    torch.testing.assert_close(z, codec.encode(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(cond["label"], expected["label"])
    assert not torch.allclose(z[0], z[1], atol=0.1)


def test_they_are_computed_once_and_anew_when_anything_changes(pictures: Dataset, tmp_path: Path) -> None:
    first, asked, _ = computed(pictures, tmp_path)
    again, not_again, told = computed(pictures, tmp_path)
    assert (asked, not_again, told) == (40, 0, [])
    assert np.array_equal(first.x, again.x)
    assert (first.offset, first.scale) == (again.offset, again.scale)
    assert computed(pictures, tmp_path, fingerprint="b")[1] == 40, "another autoencoder"
    assert computed(pictures, tmp_path, flip=True)[1] == 80, "mirrored too"
    assert computed(replace(pictures, fingerprint="other"), tmp_path)[1] == 40, "other data, or read in another way"
    assert computed(replace(pictures, spec=replace(pictures.spec, scale=(100.0,) * 3)), tmp_path)[1] == 40, (
        "other units"
    )
    assert computed(pictures, tmp_path)[1] == 0


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _change(file: Path) -> None:
    contents = file.read_bytes()
    if file.suffix == ".json":  # a digit of the units
        place = contents.index(b"scale") + 12
        contents = contents[:place] + (b"1" if contents[place : place + 1] != b"1" else b"2") + contents[place + 1 :]
    else:
        contents = contents[:-5] + bytes([contents[-5] ^ 1]) + contents[-4:]
    file.write_bytes(contents)


def _lose(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("name", ["x.npy", "meta.json"])
@pytest.mark.parametrize("damage", [_cut, _change, _lose])
def test_a_damaged_cache_is_made_anew(
    damage: Callable[[Path], None], name: str, pictures: Dataset, tmp_path: Path
) -> None:
    good, _, _ = computed(pictures, tmp_path)
    values = np.array(good.x)
    (entry,) = (tmp_path / "latents").iterdir()
    damage(entry / name)
    found, asked, _ = computed(pictures, tmp_path)
    assert asked == 40
    assert np.array_equal(found.x, values)
    assert found.scale == good.scale
    assert computed(pictures, tmp_path)[1] == 0


def test_latents_that_are_no_numbers(pictures: Dataset, tmp_path: Path) -> None:
    def broken(x: Tensor) -> Tensor:
        return CODEC.raw(x).masked_fill(x[:, :2, ::2, ::2] > 0.9, torch.nan)

    with pytest.raises(UserError, match=r"numbers of image that are NaN or infinite"):
        latents(pictures, broken, "c", False, tmp_path)
    assert not list((tmp_path / "latents").glob("[!.]*")), "nothing of it is kept"
