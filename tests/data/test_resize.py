"""Sizes and backgrounds."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unstir.data.resize import as_size, composite, fit_picture
from unstir.errors import UserError


def test_every_product_of_two_bytes_is_rounded_right() -> None:
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([value, value, value, alpha], -1).astype(np.uint8)
    for background, below in [("black", 0), ("white", 255), ("#4d4d4d", 77)]:
        exact = (alpha * value + (255 - alpha) * below) / 255
        np.testing.assert_array_equal(composite(rgba, background)[..., 0], np.floor(exact + 0.5))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_what_has_the_size_is_not_touched(fit: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (13, 17, 4), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(fit_picture(Image.fromarray(x), (13, 17), fit, "white")), x)  # type: ignore[arg-type]


def test_crop_keeps_the_middle() -> None:
    x = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    result = fit_picture(Image.fromarray(x), (12, 12), "crop", "white")
    np.testing.assert_array_equal(np.asarray(result), x[:, 4:16])
    rgba = np.random.default_rng(1).integers(
        0, 256, (8, 13, 4), dtype=np.uint8
    )  # hidden colours too: no premultiplying
    np.testing.assert_array_equal(
        np.asarray(fit_picture(Image.fromarray(rgba), (8, 8), "crop", "white")), rgba[:, 2:10]
    )
    thirds = fit_picture(Image.fromarray(x), (4, 4), "crop", "white")
    blocks = x[:, 4:16].reshape(4, 3, 4, 3, 3).mean((1, 3))
    assert np.abs(np.asarray(thirds) - blocks).max() < 0.56


def test_pad_centres_on_the_background() -> None:
    x = np.full((10, 20, 3), 9, np.uint8)
    result = np.asarray(fit_picture(Image.fromarray(x), (20, 20), "pad", "#010203"))
    assert result[:5].reshape(-1, 3).tolist() == [[1, 2, 3]] * 100
    assert result[5:15].reshape(-1, 3).tolist() == [[9, 9, 9]] * 200
    assert result[15:].reshape(-1, 3).tolist() == [[1, 2, 3]] * 100


def test_a_ramp_stays_a_ramp() -> None:
    ramp = np.broadcast_to(np.arange(0, 240, 3, dtype=np.uint8), (80, 80)).copy()
    result = np.asarray(fit_picture(Image.fromarray(ramp), (50, 50), "stretch", "white")).astype(float)
    expected = (np.arange(50) + 0.5) * 1.6 * 3 - 1.5
    np.testing.assert_allclose(result[:, 3:-3], np.broadcast_to(expected, (50, 50))[:, 3:-3], atol=1)


def test_no_aliasing() -> None:
    stripes = np.zeros((90, 90), np.uint8)
    stripes[:, ::2] = 255  # finer than the small picture can show: must become grey, not wider stripes
    for side in (45, 40):
        result = np.asarray(fit_picture(Image.fromarray(stripes), (side, side), "stretch", "white"))
        np.testing.assert_allclose(result[3:-3, 3:-3], 127.5, atol=4)


def test_transparent_colours_do_not_bleed() -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, ::2] = [200, 0, 0, 255]
    rgba[:, 1::2] = [0, 255, 0, 0]  # a green that nobody sees
    for side in (4, 5):
        result = np.asarray(fit_picture(Image.fromarray(rgba), (side, side), "stretch", "white"))
        assert result[..., 1].max() == 0
        np.testing.assert_allclose(result[..., 0], 200, atol=2)


def test_size_option() -> None:
    assert as_size((32,)) == (32, 32)
    assert as_size((48, 64)) == (48, 64)
    assert as_size(None) is None
    for bad in [(1, 2, 3), (0, 4), ()]:
        with pytest.raises(UserError, match=r"--data\.size"):
            as_size(bad)
