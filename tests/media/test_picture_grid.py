from __future__ import annotations

import numpy as np
import pytest

from unstir.media.grid import as_pictures, best_columns, best_scale, picture_grid, volume_pictures

WHITE = (255, 255, 255)


def numbered(n: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (n, height, width, channels), dtype=np.uint8)


def test_every_pixel_of_a_grid() -> None:
    x = numbered(5, 3, 4, 3)
    grid = np.asarray(picture_grid(x, columns=3, scale=2, padding=2))
    expected = np.full((2 + 2 * (6 + 2), 2 + 3 * (8 + 2), 3), 255, dtype=np.uint8)
    for i, picture in enumerate(x):
        top, left = 2 + i // 3 * 8, 2 + i % 3 * 10
        expected[top : top + 6, left : left + 8] = picture.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(grid, expected)


def test_grey_with_and_without_an_axis_are_the_same() -> None:
    x = numbered(4, 8, 8, 1)
    with_axis, without = picture_grid(x), picture_grid(x[..., 0])
    assert with_axis.tobytes() == without.tobytes()
    assert with_axis.getpixel((2, 2)) == (int(x[0, 0, 0, 0]),) * 3


def test_transparency_is_laid_on_the_background() -> None:
    x = np.zeros((1, 1, 2, 4), dtype=np.uint8)
    x[0, 0, 0] = (200, 100, 0, 128)  # half there
    grid = picture_grid(x, scale=1, padding=0, background="white")
    half = tuple(round(c * 128 / 255 + 255 * 127 / 255) for c in (200, 100, 0))
    assert np.abs(np.subtract(grid.getpixel((0, 0)), half)).max() <= 1
    assert grid.getpixel((1, 0)) == WHITE
    checker = picture_grid(np.zeros((1, 16, 16, 4), dtype=np.uint8), scale=1, padding=0, background="checker")
    assert [checker.getpixel(place) for place in ((0, 0), (8, 0), (0, 8), (8, 8))] == [
        WHITE,
        (226, 228, 232),
        (226, 228, 232),
        WHITE,
    ]


def test_row_labels_move_the_pictures_to_the_right_only() -> None:
    x = numbered(4, 6, 6, 3)
    plain, named = (np.asarray(picture_grid(x, 2, 3, row_labels=names)) for names in (None, ["cat", "a long name"]))
    assert named.shape[0] == plain.shape[0]
    left = named.shape[1] - plain.shape[1]
    np.testing.assert_array_equal(named[:, left:], plain)
    for row in range(2):  # there is ink beside each row
        assert named[2 + 20 * row : 2 + 20 * row + 18, :left].min() < 100


def test_labels_stand_below_their_pictures() -> None:
    x = np.full((2, 32, 32, 3), 255, dtype=np.uint8)
    grid = np.asarray(picture_grid(x, 2, 3, labels=["", "B"]))
    assert grid[:, : 2 + 98].min() == 255
    assert grid[: 2 + 96].min() == 255
    assert grid[2 + 96 :, 2 + 98 :].min() < 100


@pytest.mark.parametrize(
    ("n", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (10, 5), (16, 4), (36, 6), (64, 8), (100, 10), (400, 20)]
)
def test_best_columns(n: int, columns: int) -> None:
    assert best_columns(n) == columns


@pytest.mark.parametrize(("side", "scale"), [(8, 12), (28, 3), (32, 3), (64, 1), (256, 1)])
def test_small_pictures_are_enlarged_by_whole_numbers(side: int, scale: int) -> None:
    assert best_scale(side, side, 4, 4) == scale


def test_a_large_grid_stays_below_1600_pixels() -> None:
    assert max(picture_grid(np.zeros((400, 32, 32, 1), dtype=np.uint8)).size) <= 1600


def test_many_channels_lie_side_by_side() -> None:
    x = numbered(2, 4, 3, 5)
    side_by_side = np.concatenate([x[..., channel] for channel in range(5)], axis=2)
    np.testing.assert_array_equal(as_pictures(x), np.stack([side_by_side] * 3, axis=-1))


def test_volumes_show_their_middles() -> None:
    x = np.random.default_rng(0).integers(0, 255, (2, 1, 4, 6, 8), dtype=np.uint8)
    pictures = volume_pictures(x)
    np.testing.assert_array_equal(pictures[1, :, :8, 0], x[1, 0, 2])
    np.testing.assert_array_equal(pictures[1, 1:5, 9:17, 0], x[1, 0, :, 3])
    np.testing.assert_array_equal(pictures[1, 1:5, 18:24, 0], x[1, 0, :, :, 4])
    np.testing.assert_array_equal(volume_pictures(x[:1])[..., 0], x[0, 0])


@pytest.mark.parametrize(
    "x", [np.zeros((2, 3, 3), dtype=np.float32), np.zeros((4,), dtype=np.uint8), np.zeros((0, 3, 3), dtype=np.uint8)]
)
def test_what_is_no_picture(x: np.ndarray) -> None:
    with pytest.raises(ValueError):
        picture_grid(x)
