"""Resizing against Pillow and against sums written out; pictures of other channels as RGB."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from unstir.errors import UserError
from unstir.evaluation.features.resize import antialiased, as_rgb, tensorflow_bilinear

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pictures(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 9), (29, 23), (64, 96), (299, 5)])
def test_antialiased_is_pillows_filter(kernel: Literal["bilinear", "bicubic"], size: tuple[int, int]) -> None:
    x = pictures(2, 29, 31, 3)
    found = antialiased(as_rgb(x), size, kernel)
    for picture, ours in zip(x, found.movedim(1, -1).numpy()):
        for channel in range(3):
            floating = Image.fromarray(picture[..., channel].astype(np.float32))  # mode F: nothing is rounded
            theirs = np.asarray(floating.resize(size[::-1], PILLOW[kernel]))
            np.testing.assert_allclose(ours[..., channel], theirs, atol=2e-3)


@pytest.mark.parametrize("size", [(7, 9), (29, 23), (64, 96)])
def test_antialiased_is_what_pillow_rounds(size: tuple[int, int]) -> None:
    x = pictures(2, 29, 31, 3) // 2 + 64  # away from 0 and 255, where Pillow also clips between rows and columns
    for picture, ours in zip(x, antialiased(as_rgb(x), size).movedim(1, -1).numpy()):
        theirs = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))
        assert np.abs(np.rint(ours) - theirs).max() <= 1


def test_nothing_is_done_to_the_right_size() -> None:
    x = as_rgb(pictures(1, 9, 8, 3))
    assert antialiased(x, (9, 8)) is x


def test_only_the_antialiased_filter_sees_grey_in_a_fine_checkerboard() -> None:
    board = 255 * (np.indices((96, 96)).sum(0) % 2).astype(np.uint8)[None]
    grey = antialiased(as_rgb(board), (24, 24))[..., 2:-2, 2:-2]
    torch.testing.assert_close(grey, torch.full_like(grey, 127.5), atol=1e-3, rtol=0)
    assert tensorflow_bilinear(as_rgb(board), (24, 24)).eq(0).all()  # every fourth pixel of every fourth row is black


@pytest.mark.parametrize("size", [(16, 16), (5, 31), (12, 10), (1, 1)])
def test_tensorflows_bilinear_is_its_definition(size: tuple[int, int]) -> None:
    x = pictures(1, 12, 10, 3)
    found = tensorflow_bilinear(as_rgb(x), size)
    rows, columns = size
    for i in range(rows):
        for j in range(columns):
            down, right = i * 12 / rows, j * 10 / columns
            top, left = int(down), int(right)
            bottom, beside = min(top + 1, 11), min(left + 1, 9)
            a, b = down - top, right - left
            corners = (x[0, p, q].astype(float) for p in (top, bottom) for q in (left, beside))
            weights = ((1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b)
            expected = sum(w * c for w, c in zip(weights, corners))
            np.testing.assert_allclose(found[0, :, i, j].numpy(), expected, atol=1e-3)


def test_tensorflows_bilinear_is_half_a_pixel_off() -> None:
    x = torch.tensor([0.0, 10.0]).reshape(1, 1, 1, 2)
    assert tensorflow_bilinear(x, (1, 4)).flatten().tolist() == [0, 5, 10, 10]
    assert torch.nn.functional.interpolate(x, (1, 4), mode="bilinear").flatten().tolist() == [0, 2.5, 7.5, 10]


def test_grey_is_repeated() -> None:
    x = pictures(2, 5, 4)
    found = as_rgb(x)
    assert found.shape == (2, 3, 5, 4)
    for channel in range(3):
        np.testing.assert_array_equal(found[:, channel].numpy(), x)
    assert torch.equal(as_rgb(x[..., None]), found)


def test_transparency_lies_over_white() -> None:
    x = pictures(3, 6, 5, 4)
    x[0, 0, 0], x[0, 0, 1] = (10, 20, 30, 0), (10, 20, 30, 255)
    found = as_rgb(x)
    assert found[0, :, 0, 0].tolist() == [255, 255, 255]
    assert found[0, :, 0, 1].tolist() == [10, 20, 30]
    for picture, ours in zip(x, found.movedim(1, -1).numpy()):
        white = Image.new("RGBA", (5, 6), "white")
        theirs = np.asarray(Image.alpha_composite(white, Image.fromarray(picture)).convert("RGB"))
        assert np.abs(ours - theirs).max() <= 1
    grey = pictures(1, 6, 5, 2)
    assert torch.equal(as_rgb(grey), as_rgb(grey[..., [0, 0, 0, 1]]))


def test_what_is_no_picture() -> None:
    with pytest.raises(UserError, match=r"5 channels.*--features own or pixels"):
        as_rgb(pictures(1, 4, 4, 5))
    with pytest.raises(UserError, match=r"take bytes.*float32"):
        as_rgb(np.zeros((1, 4, 4, 3), np.float32))
