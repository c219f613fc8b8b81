"""Horizontal bars, for the figures that a table holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from unstir.media.axes import COLORS
from unstir.media.text import INK, PALE, fit_text, font, text_width

TEXT, ROW, LENGTH = 24, 40, 720
"""Pixels: of letters, of a row, of the longest bar."""


@dataclass(frozen=True)
class Bar:
    """One row.

    Args:
        name: to its left.
        value: its length, a median.
        low, high: the ends of a thin line through its end: the smallest and largest value measured.
        group: bars of a group have one colour.
    """

    name: str
    value: float
    low: float
    high: float
    group: str


def bar_chart(path: str | None, title: str, unit: str, bars: Sequence[Bar]) -> None:
    """Writes a PNG, if a path was given; numbers stand beside the bars, so there is no axis."""
    if not path or not bars:
        return
    colours = dict(zip(dict.fromkeys(bar.group for bar in bars), COLORS * len(bars)))
    left = max(text_width(bar.name, TEXT) for bar in bars) + 2 * TEXT
    longest = max(bar.high for bar in bars) or 1.0
    picture = Image.new("RGB", (left + LENGTH + 7 * TEXT, ROW * (len(bars) + 2)), "white")
    draw = ImageDraw.Draw(picture)
    heading = fit_text(f"{title} ({unit})", TEXT + 2, picture.width - 2 * TEXT)
    draw.text((TEXT, ROW * 0.75), heading, INK, font(TEXT + 2), anchor="lm")
    for index, bar in enumerate(bars):
        y = round(ROW * (index + 2))
        end, low, high = (left + round(LENGTH * value / longest) for value in (bar.value, bar.low, bar.high))
        draw.text((left - TEXT / 2, y), fit_text(bar.name, TEXT, left), INK, font(TEXT), anchor="rm")
        draw.rectangle((left, y - ROW * 0.32, end, y + ROW * 0.32), fill=colours[bar.group])
        draw.line((low, y, high, y), INK, 3)
        draw.text((max(end, high) + TEXT / 2, y), f"{bar.value:.3g}", PALE, font(TEXT), anchor="lm")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
