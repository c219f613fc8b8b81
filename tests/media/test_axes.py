from __future__ import annotations

import math

import numpy as np
import pytest

from unstir.media.axes import Panel, log_ticks, span, thinned, tick_text, ticks

BOX = (0, 0, 200, 100)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-2.2, 2.2, [-2, -1, 0, 1, 2]),
        (3, 98, [20, 40, 60, 80]),
        (1e-5, 6e-5, [1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5]),
        (1000, 1010, [1000, 1002, 1004, 1006, 1008, 1010]),
    ],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_log_ticks() -> None:
    assert log_ticks(0.5, 2000) == pytest.approx([1, 10, 100, 1000])
    assert log_ticks(0.015, 1.2) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1])
    assert log_ticks(1, 1e12, 5) == pytest.approx([1, 1e3, 1e6, 1e9, 1e12])


@pytest.mark.parametrize(
    ("value", "step", "words"),
    [
        (0.25, 0.05, "0.25"),
        (1000, 500, "1,000"),
        (3e-5, 1e-5, "3e-5"),
        (1e-17, 0.1, "0"),
        (2e6, 1e6, "2e6"),
        (-0.5, 0.5, "-0.5"),
        (0.1, 0.1, "0.1"),
        (20, 20, "20"),
    ],
)
def test_tick_text(value: float, step: float, words: str) -> None:
    assert tick_text(value, step) == words


def test_limits_ignore_what_is_not_finite() -> None:
    assert span(np.array([0.0, np.nan, 10.0, np.inf]), margin=0.1) == pytest.approx((-1, 11))
    assert span(np.array([-1.0, 1.0, 100.0]), margin=0.5, log=True) == pytest.approx((0.1, 1000))
    low, high = span(np.array([5.0]))
    assert low < 5 < high
    assert span() == (0.0, 1.0)


def centre(picture: np.ndarray) -> tuple[float, float]:
    """Where the ink is: (x, y) in pixels, a pixel's middle being half a pixel from its edge."""
    ink = 255.0 - picture.astype(np.float64).min(axis=-1)
    rows, columns = np.indices(ink.shape) + 0.5
    return float((ink * columns).sum() / ink.sum()), float((ink * rows).sum() / ink.sum())


@pytest.mark.parametrize("size", [12, 24])
def test_a_point_lies_where_it_should(size: int) -> None:
    panel = Panel(x_limits=(0, 10), y_limits=(-1, 1)).scatter(
        np.array([[2.5, 0.5]]), color="#000000", radius=2, opacity=1
    )
    picture = np.asarray(panel.draw_marks(BOX, size))
    assert centre(picture) == pytest.approx((50, 25), abs=0.35)
    assert picture[25, 50].max() < 30
    radius = 2 * size / 12
    assert (255.0 - picture[..., 0]).sum() / 255 == pytest.approx(math.pi * radius**2, rel=0.15)


def test_a_point_on_logarithmic_axes() -> None:
    panel = Panel(x_limits=(1, 1e4), y_limits=(1e-2, 1), log_x=True, log_y=True).scatter(
        np.array([[10.0, 0.1]]), "#000000", 2, 1
    )
    assert centre(np.asarray(panel.draw_marks(BOX))) == pytest.approx((50, 50), abs=0.35)


def test_overlapping_dots_add_up() -> None:
    """Two dots of opacity 0.5 in one place cover 0.75, whatever came first."""
    panel = Panel(x_limits=(0, 1), y_limits=(0, 1)).scatter(np.full((2, 2), 0.5), "#000000", 4, 0.5)
    assert np.asarray(panel.draw_marks(BOX))[50, 100, 0] == pytest.approx(255 * 0.25, abs=2)


def test_equal_axes_have_one_unit() -> None:
    panel = Panel(equal=True, x_limits=(-1, 1), y_limits=(-1, 1))
    x, y = panel.limits(BOX)
    assert y == pytest.approx((-1, 1))
    assert x == pytest.approx((-2, 2))


def test_an_arrow_goes_from_its_place_along_its_vector() -> None:
    panel = Panel(x_limits=(0, 200), y_limits=(0, 100))
    panel.quiver(np.array([[50.0, 50.0]]), np.array([[1.0, 0.0]]), "#000000", length=60)
    ink = np.asarray(panel.draw_marks(BOX)).min(axis=-1) < 128
    columns, rows = np.flatnonzero(ink.any(axis=0)), np.flatnonzero(ink.any(axis=1))
    assert columns[0] == pytest.approx(50, abs=1)
    assert columns[-1] == pytest.approx(109, abs=2)
    assert rows.mean() == pytest.approx(49.5, abs=1)
    assert ink[:, 106].sum() > ink[:, 80].sum() == ink[:, 60].sum() > 0  # the head is at the end


def test_arrows_are_as_long_as_they_are_apart() -> None:
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), -1).reshape(-1, 2)
    end = Panel().quiver(grid, np.tile([0.0, 7.0], (25, 1))).marks[0].end
    assert end is not None
    assert np.linalg.norm(end - grid, axis=1) == pytest.approx(np.full(25, 4 / 5))


def test_a_bar_is_as_high_as_its_count() -> None:
    panel = Panel(x_limits=(0, 2), y_limits=(0, 4)).bars(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0]), "#000000")
    ink = np.asarray(panel.draw_marks(BOX))[..., 0] < 128
    assert [int(ink[:, column].sum()) for column in (50, 150)] == pytest.approx([25, 75], abs=1)
    assert ink[-1, 50]


def test_a_gap_in_a_line_stays_a_gap() -> None:
    y = np.full(201, 0.5)
    y[80:121] = np.nan
    panel = Panel(x_limits=(0, 200), y_limits=(0, 1)).line(np.arange(201.0), y, "#000000", width=3)
    picture = np.asarray(panel.draw_marks(BOX))
    ink = picture.min(axis=-1) < 128
    assert (picture[:, 83:118] == 255).all()
    for columns in (ink[:, :78], ink[:, 123:]):
        assert (columns.sum(axis=0) == 3).all()  # pixels high
        assert columns[48:52].sum() == columns.sum()  # at half the height


def test_thinning_keeps_every_peak() -> None:
    y = np.zeros(10_000)
    y[[1234, 7777]] = 5, -3
    x_thin, y_thin = thinned(np.arange(10_000.0), y, columns=100)
    assert len(x_thin) == 200
    assert x_thin[y_thin == 5] == [1234]
    assert x_thin[y_thin == -3] == [7777]
    assert (np.diff(x_thin) >= 0).all()
