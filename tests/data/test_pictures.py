"""Every mode that Pillow opens, against pixels worked out by hand."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unstir.data.config import DataConfig
from unstir.data.pictures import choose_size, decode, to_8_bits

WHITE = DataConfig()


def pixels(picture: Image.Image, file_format: str = "PNG", config: DataConfig = WHITE, **options: Any) -> list[Any]:
    """The first row of what a saved picture decodes to."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return decode(buffer.getvalue(), None, config)[0].tolist()


def row(mode: str, values: list[Any]) -> Image.Image:
    picture = Image.new(mode, (len(values), 1))
    picture.putdata(values)
    return picture


def test_plain_modes() -> None:
    assert pixels(row("RGB", [(1, 2, 3), (250, 0, 9)])) == [[1, 2, 3], [250, 0, 9]]
    assert pixels(row("L", [7, 200])) == [[7] * 3, [200] * 3]
    assert pixels(row("1", [0, 255])) == [[0] * 3, [255] * 3]


def test_alpha_is_laid_on_the_background() -> None:
    # 255 - (255 - c) a / 255 on white, c a / 255 on black, to the nearest
    assert pixels(row("RGBA", [(10, 20, 30, 255), (10, 20, 30, 0), (0, 100, 200, 51)])) == [
        [10, 20, 30], [255] * 3, [204, 224, 244],
    ]  # fmt: skip
    assert pixels(row("RGBA", [(0, 100, 200, 51)]), config=DataConfig(background="black")) == [[0, 20, 40]]
    assert pixels(row("LA", [(100, 51), (3, 255)])) == [[224] * 3, [3] * 3]
    assert pixels(row("RGBA", [(1, 2, 3, 4)]), config=DataConfig(channels="rgba")) == [[1, 2, 3, 4]]
    assert pixels(row("L", [9]), config=DataConfig(channels="rgba")) == [[9, 9, 9, 255]]


def test_palettes() -> None:
    picture = row("P", [0, 1, 2])
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert pixels(picture) == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert pixels(picture, transparency=1) == [[10, 20, 30], [255] * 3, [70, 80, 90]]
    assert pixels(picture, transparency=bytes([255, 0, 51])) == [[10, 20, 30], [255] * 3, [218, 220, 222]]
    assert pixels(picture, "GIF", transparency=2) == [[10, 20, 30], [40, 50, 60], [255] * 3]
    with_alpha = Image.new("PA", (1, 1))
    with_alpha.putpalette([10, 20, 30])
    with_alpha.putalpha(0)
    assert np.asarray(to_8_bits(with_alpha)).tolist() == [[[10, 20, 30, 0]]]


def test_a_colour_can_be_declared_transparent() -> None:
    assert pixels(row("RGB", [(1, 2, 3), (4, 5, 6)]), transparency=(1, 2, 3)) == [[255] * 3, [4, 5, 6]]
    assert pixels(row("L", [5, 6]), transparency=5) == [[255] * 3, [6] * 3]


def test_16_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    expected = [[round(int(v) / 257)] * 3 for v in values[0]]
    assert pixels(Image.fromarray(values)) == expected
    assert pixels(Image.fromarray(values), "TIFF") == expected
    assert expected[-1] == [255] * 3


def test_every_16_bit_value_goes_to_the_nearest_byte() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    result = np.asarray(to_8_bits(Image.fromarray(values)))[..., 0]
    np.testing.assert_array_equal(result, np.rint(values / 257))


def test_integers_and_floats() -> None:
    assert pixels(Image.fromarray(np.array([[0, 65535, 257]], np.int32)), "TIFF") == [[0] * 3, [255] * 3, [1] * 3]
    assert pixels(Image.fromarray(np.array([[0, 255, 7]], np.int32)), "TIFF") == [[0] * 3, [255] * 3, [7] * 3]
    assert pixels(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF") == [[0] * 3, [128] * 3, [255] * 3]
    assert pixels(Image.fromarray(np.array([[0, 9.6, 255]], np.float32)), "TIFF") == [[0] * 3, [10] * 3, [255] * 3]
    assert pixels(Image.fromarray(np.array([[-1, 0, 1]], np.float32)), "TIFF") == [[0] * 3, [128] * 3, [255] * 3]
    with pytest.raises(ValueError, match="NaN"):
        to_8_bits(Image.fromarray(np.array([[np.nan]], np.float32)))


def test_cmyk_and_ycbcr() -> None:
    # (1 - C)(1 - K): Pillow's own formula, without a colour profile
    assert pixels(row("CMYK", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)]), "TIFF") == [
        [255] * 3,
        [0, 255, 255],
        [0] * 3,
    ]
    assert pixels(row("YCbCr", [(128, 128, 128), (255, 128, 128)]), "TIFF") == [[128] * 3, [255] * 3]
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = pixels(flat, "JPEG", quality=100)[0]
    assert red == pytest.approx([255, 0, 0], abs=3)  # and not inverted, as CMYK in JPEG often is


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_the_camera(orientation: int) -> None:
    upright = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    # What the sensor holds, so that the viewer's turn (EXIF 2.3, table 6) makes it upright.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(decode(buffer.getvalue(), None, WHITE)[..., 0], upright)


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "lime", "blue")]
    for file_format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        result = pixels(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert result == [[255, 0, 0]] * 2


def test_very_large_pictures_are_reduced_while_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = np.linspace(0, 255, 2048).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.broadcast_to(gradient, (1536, 2048)).copy()).save(buffer, "JPEG", quality=95)
    sizes = []
    original = to_8_bits
    monkeypatch.setattr("unstir.data.pictures.to_8_bits", lambda p: (sizes.append(p.size), original(p))[1])
    result = decode(buffer.getvalue(), (48, 64), DataConfig(fit="stretch"))
    assert sizes == [(256, 192)]
    np.testing.assert_allclose(result[..., 0], np.broadcast_to(gradient.reshape(64, 32).mean(1), (48, 64)), atol=2)


def test_choice_of_size() -> None:
    assert choose_size(Counter({(96, 128): 9})) == (96, 128)
    assert choose_size(Counter({(768, 1024): 9})) == (64, 64)
    assert choose_size(Counter({(20, 30): 5, (22, 90): 1})) == (16, 16)
    assert choose_size(Counter({(45, 50): 5, (500, 400): 2})) == (48, 48)
    assert choose_size(Counter({(3, 5): 5, (4, 4): 2})) == (8, 8)


def test_broken_files_say_why(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(whole, "PNG")
    with pytest.raises(OSError, match="truncated"):
        decode(whole.getvalue()[:1000], None, WHITE)
