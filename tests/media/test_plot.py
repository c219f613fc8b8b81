from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from unstir.media.axes import COLORS
from unstir.media.plot import curves, points_plot, signal_grid, sohl_dickstein_figure

RNG = np.random.default_rng(0)


def amount(picture: Image.Image, color: str) -> int:
    """How many pixels have a colour, nearly."""
    distance = np.abs(np.asarray(picture, dtype=int) - ImageColor.getrgb(color)).max(axis=-1)
    return int((distance < 12).sum())


def test_points_of_two_classes_have_two_colours() -> None:
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 30, axis=0)
    one, two = points_plot(x), points_plot(x, classes=["a"] * 30 + ["b"] * 30)
    assert amount(one, COLORS[0]) > 0 == amount(one, COLORS[1])
    assert amount(two, COLORS[0]) > 0 < amount(two, COLORS[1])


def test_points_with_other_limits_lie_elsewhere() -> None:
    """What is outside of the limits that ``like`` sets is not drawn."""
    x = np.full((50, 2), 10.0)
    assert amount(points_plot(x, like=RNG.random((9, 2))), COLORS[0]) == 0
    assert amount(points_plot(x), COLORS[0]) > 0


@pytest.mark.parametrize(("dims", "pairs"), [(3, 3), (4, 6), (5, 10), (9, 10)])
def test_many_coordinates_are_shown_in_pairs(dims: int, pairs: int) -> None:
    """Every pair has a panel: with all points in one place, each panel has one dot."""
    picture = points_plot(np.ones((200, dims)), scale=1)
    blue = np.abs(np.asarray(picture, dtype=int) - ImageColor.getrgb(COLORS[0])).max(axis=-1) < 60
    assert blobs(blue) == pairs


def blobs(mask: np.ndarray) -> int:
    """Separate dots: groups of rows, in each of them groups of columns."""

    def groups(line: np.ndarray) -> list[slice]:
        edges = np.flatnonzero(np.diff(np.r_[0, line.astype(int), 0]))
        return [slice(a, b) for a, b in zip(edges[::2], edges[1::2])]

    return sum(len(groups(mask[rows].any(axis=0))) for rows in groups(mask.any(axis=1)))


def test_numbers_that_are_not_finite_are_left_out() -> None:
    x = RNG.random((100, 2))
    broken = np.concatenate([x, [[np.nan, 0.5], [np.inf, 0.5]]])
    assert points_plot(broken).tobytes() == points_plot(np.concatenate([x, x[:0]])).tobytes()
    points_plot(broken[:, :1])
    signal_grid(np.full((2, 1, 16), np.nan))


def test_signals_share_their_limits() -> None:
    """A signal of half the height is drawn half as high beside the other."""
    wave = np.sin(np.linspace(0, 2 * np.pi, 100))
    picture = np.asarray(signal_grid(np.stack([wave / 2, wave])[:, None], columns=2, scale=1), dtype=int)
    blue = np.abs(picture - ImageColor.getrgb(COLORS[0])).max(axis=-1) < 60
    middle = picture.shape[1] // 2
    low, high = (np.flatnonzero(half.any(axis=1)) for half in (blue[:, :middle], blue[:, middle:]))
    assert np.ptp(low) / np.ptp(high) == pytest.approx(0.5, abs=0.03)


def test_two_channels_two_colours() -> None:
    picture = signal_grid(RNG.normal(size=(6, 2, 40)), channels=("MLII", "V5"))
    assert amount(picture, COLORS[0]) > 0 < amount(picture, COLORS[1])


def test_curves_fall_from_left_to_right() -> None:
    steps = np.arange(1, 101)
    picture = np.asarray(curves({"loss": (steps, 1.0 / steps)}, log_x=True, log_y=True, scale=1), dtype=int)
    rows, columns = np.nonzero(np.abs(picture - ImageColor.getrgb(COLORS[0])).max(axis=-1) < 60)
    slope, _ = np.polyfit(columns, rows, 1)
    assert slope == pytest.approx(300 / 520, abs=0.02)  # 1/x on logarithmic axes is the frame's diagonal


def test_sohl_dickstein_figure_has_nine_panels_in_the_papers_order() -> None:
    """A cloud in one place moves from panel to panel."""
    at = [np.tile([[place, 0.0]], (50, 1)) for place in (-1.0, 0.0, 1.0)]
    data = np.array([[-2.0, 0.0], [2.0, 0.0]])
    grid = np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]), -1).reshape(-1, 2)
    picture = sohl_dickstein_figure(
        data, at, at, [grid] * 3, [grid, -grid, grid], ("t = 0", "t = T/2", "t = T"), scale=1
    )
    pixels = np.asarray(picture, dtype=int)
    for row, color in enumerate(COLORS[:2]):
        rows, columns = np.nonzero(np.abs(pixels - ImageColor.getrgb(color)).max(axis=-1) < 60)
        assert row * picture.height / 3 < rows.mean() < (row + 1) * picture.height / 3
        centres = [
            columns[(columns > k * picture.width / 3) & (columns < (k + 1) * picture.width / 3)].mean()
            for k in range(3)
        ]
        shift = 210 / (2 * 1.15 * 2)  # pixels for one unit; the data reach 2
        steps = np.diff(centres) - shift
        assert steps[0] == pytest.approx(steps[1], abs=1)  # beside the shift: the same way from panel to panel
        assert steps[0] == pytest.approx(220, abs=2)  # the frame's 210 and the gap's 10
