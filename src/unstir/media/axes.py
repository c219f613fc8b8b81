"""Axes: from numbers to places in a picture. Points, lines, arrows and bars are drawn too large and made smaller, which smooths them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from unstir.media.text import INK, PALE, fit_text, font, text_width

TEXT = 12  # the size of text for which the marks' sizes are meant; all grow together
COLORS = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#6cc5b0", "#ff8ab7", "#9c6b4e", "#97bbf5", "#9498a0")
FRAME = (196, 200, 208)
GRID = (237, 239, 243)

Array = npt.NDArray[np.float64]
Limits = tuple[float, float]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * m for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Powers of ten within [low, high], every few where there are many; with 2 and 5 times them where there are fewer than three."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 2:
        return [10.0**i for i in range(first, last + 1, max(1, math.ceil((last - first + 1) / (count + 1))))]
    fine = [m * 10.0**i for i in range(first - 1, last + 1) for m in (1, 2, 5)]
    found = [value for value in fine if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return found if len(found) > 1 else ticks(low, high, count)


def tick_text(value: float, step: float) -> str:
    """A tick's number with the digits that its step needs: 0.25, 1,000, 3e-5."""
    if abs(value) < 1e-9 * step:
        return "0"
    if abs(value) >= 1e6 or abs(step) < 1e-4:
        mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else (f"{value:.3g}", "")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}"


def span(*values: Array, margin: float = 0.05, log: bool = False) -> Limits:
    """Limits that hold all finite values, with a margin on both sides."""
    numbers = np.concatenate([np.ravel(v) for v in values]) if values else np.zeros(0)
    numbers = numbers[np.isfinite(numbers) & ((numbers > 0) | (not log))]
    if numbers.size == 0:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(numbers.min()), float(numbers.max())
    if log:
        room = margin * (math.log10(high / low) or 1.0)
        return low / 10**room, high * 10**room
    room = margin * ((high - low) or abs(low) or 1.0)
    return low - room, high + room


@dataclass
class Marks:
    """What one call of scatter, line, quiver or bars put on a panel; x and y are parallel."""

    kind: str
    x: Array
    y: Array
    color: str
    size: float = 1.0
    opacity: float = 1.0
    end: Array | None = None  # (N, 2), the arrows' heads


@dataclass
class Panel:
    """One pair of axes and what is drawn on it.

    Args:
        title, x_label, y_label: may be empty.
        x_limits, y_limits: default: what holds everything drawn.
        log_x, log_y: logarithmic axes.
        equal: one unit is as long on both axes.
        numbers: ticks with numbers; off for small panels.
        grid: pale lines at the ticks.
    """

    title: str = ""
    x_label: str = ""
    y_label: str = ""
    x_limits: Limits | None = None
    y_limits: Limits | None = None
    log_x: bool = False
    log_y: bool = False
    equal: bool = False
    numbers: bool = True
    grid: bool = False
    marks: list[Marks] = field(default_factory=list)

    def scatter(self, points: Array, color: str = COLORS[0], radius: float = 1.3, opacity: float = 0.6) -> Panel:
        """Dots at (N, 2), ``radius`` in pixels beside text of 12 pixels; where dots overlap the colour is fuller, 1 - (1 - opacity)^count."""
        points = np.asarray(points, dtype=np.float64)
        self.marks.append(Marks("dots", points[:, 0], points[:, 1], color, radius, opacity))
        return self

    def line(
        self, x: Sequence[float] | Array, y: Sequence[float] | Array, color: str = COLORS[0], width: float = 1.5
    ) -> Panel:
        """A line through (x_i, y_i); a number that is not finite leaves a gap."""
        self.marks.append(Marks("line", np.asarray(x, np.float64), np.asarray(y, np.float64), color, width))
        return self

    def quiver(self, positions: Array, vectors: Array, color: str = COLORS[0], length: float | None = None) -> Panel:
        """Arrows from (N, 2) along (N, 2). ``length``: data units of an arrow for one unit of vector; default: the longest is as
        long as the arrows are apart."""
        start, vectors = np.asarray(positions, np.float64), np.asarray(vectors, np.float64)
        if length is None:
            longest = float(np.linalg.norm(vectors, axis=1).max(initial=0)) or 1.0
            length = math.sqrt(float(np.ptp(start, axis=0).prod()) / max(1, len(start))) / longest
        self.marks.append(Marks("arrows", start[:, 0], start[:, 1], color, end=start + length * vectors))
        return self

    def bars(self, edges: Array, heights: Array, color: str = COLORS[0]) -> Panel:
        """A histogram: (N + 1,) edges and (N,) heights, from 0."""
        self.marks.append(Marks("bars", np.asarray(edges, np.float64), np.append(heights, 0.0), color))
        return self

    def limits(self, box: Box) -> tuple[Limits, Limits]:
        """(x, y) limits when drawn in a box."""
        x = self.x_limits or span(
            *[m.x for m in self.marks], *[m.end[:, 0] for m in self.marks if m.end is not None], log=self.log_x
        )
        y = self.y_limits or span(
            *[m.y for m in self.marks], *[m.end[:, 1] for m in self.marks if m.end is not None], log=self.log_y
        )
        if self.y_limits is None and any(m.kind == "bars" for m in self.marks):
            y = (0.0, y[1])
        if not self.equal:
            return x, y
        unit = max((x[1] - x[0]) / (box[2] - box[0]), (y[1] - y[0]) / (box[3] - box[1]))
        return _around(x, unit * (box[2] - box[0])), _around(y, unit * (box[3] - box[1]))

    def place(self, x: Array, y: Array, box: Box) -> tuple[Array, Array]:
        """Data -> pixels: the lower limits are the box's left and bottom edge, the upper ones its right and top edge."""
        x_limits, y_limits = self.limits(box)
        across, up = _fraction(x, x_limits, self.log_x), _fraction(y, y_limits, self.log_y)
        return box[0] + across * (box[2] - box[0]), box[3] - up * (box[3] - box[1])

    def draw_marks(self, box: Box, size: int = TEXT) -> Image.Image:
        """The panel's inside, of the box's size, without frame and numbers."""
        width, height = box[2] - box[0], box[3] - box[1]
        finer = 3 if size < 2 * TEXT else 2
        canvas = Image.new("RGB", (finer * width, finer * height), "white")
        if self.grid:
            self._draw_grid(canvas, box, size)
        for marks in self.marks:
            canvas = DRAW[marks.kind](self, marks, canvas, finer * size / TEXT)
        return canvas.resize((width, height), Image.Resampling.LANCZOS)

    def _draw_grid(self, canvas: Image.Image, box: Box, size: int) -> None:
        draw, limits, (right, bottom) = ImageDraw.Draw(canvas), self.limits(box), canvas.size
        x = np.array([value for value, _ in self._ticks(limits[0], self.log_x, 0, box, size)])
        y = np.array([value for value, _ in self._ticks(limits[1], self.log_y, 1, box, size)])
        for at in self.place(x, np.full(len(x), limits[1][0]), (0, 0, right, bottom))[0].tolist():
            draw.line([(at, 0), (at, bottom)], GRID, max(1, size // 8))
        for at in self.place(np.full(len(y), limits[0][0]), y, (0, 0, right, bottom))[1].tolist():
            draw.line([(0, at), (right, at)], GRID, max(1, size // 8))

    def draw(self, canvas: Image.Image, box: Box, size: int = TEXT) -> None:
        """Draws the panel; ``box`` is the frame, ``size`` the text's: numbers and labels stand outside of the frame."""
        canvas.paste(self.draw_marks(box, size), box[:2])
        draw = ImageDraw.Draw(canvas)
        (left, top, right, bottom), limits = box, self.limits(box)
        x_ticks = self._ticks(limits[0], self.log_x, 0, box, size)
        y_ticks = self._ticks(limits[1], self.log_y, 1, box, size)
        for value, words in x_ticks:
            at = float(self.place(np.array([value]), np.array([limits[1][0]]), box)[0][0])
            draw.line([(at, bottom), (at, bottom + size / 3)], FRAME)
            draw.text((at, bottom + size / 2), words, PALE, font(size), anchor="ma")
        for value, words in y_ticks:
            at = float(self.place(np.array([limits[0][0]]), np.array([value]), box)[1][0])
            draw.line([(left - size / 3, at), (left, at)], FRAME)
            draw.text((left - size / 2, at), words, PALE, font(size), anchor="rm")
        draw.rectangle((left, top, right, bottom), outline=FRAME)
        if self.title:
            title = fit_text(self.title, size + 1, right - left + size)
            draw.text(((left + right) / 2, top - size / 2), title, INK, font(size + 1), anchor="ms")
        middle = ((left + right) / 2, (top + bottom) / 2)
        if self.x_label:
            words, below = fit_text(self.x_label, size, right - left), 2 * size if self.numbers else size / 2
            draw.text((middle[0], bottom + below), words, INK, font(size), anchor="ma")
        if self.y_label:
            widest = max((text_width(words, size) for _, words in y_ticks), default=0)
            upright(canvas, fit_text(self.y_label, size, bottom - top), size, (left - widest - 1.5 * size, middle[1]))

    def _ticks(self, limits: Limits, log: bool, axis: int, box: Box, size: int) -> list[tuple[float, str]]:
        """Places and words of the numbers along x (axis 0) or y (1): as many as there is room for, at most about six."""
        if not self.numbers:
            return []
        room = (box[2] - box[0]) / (4.5 * size) if axis == 0 else (box[3] - box[1]) / (3 * size)
        count = max(2, min(6, int(room)))
        if log:
            return [(value, tick_text(value, min(value, 1.0))) for value in log_ticks(*limits, count)]
        values = ticks(*limits, count)
        step = values[1] - values[0] if len(values) > 1 else abs(values[0]) or 1.0
        return [(value, tick_text(value, step)) for value in values]


def _around(limits: Limits, length: float) -> Limits:
    middle = (limits[0] + limits[1]) / 2
    return middle - length / 2, middle + length / 2


def _fraction(values: Array, limits: Limits, log: bool) -> Array:
    low, high = limits
    with np.errstate(invalid="ignore", divide="ignore"):
        if log:
            return np.asarray((np.log10(values) - math.log10(low)) / (math.log10(high) - math.log10(low)))
        return np.asarray((values - low) / (high - low))


def upright(canvas: Image.Image, text: str, size: int, middle: tuple[float, float]) -> None:
    """Text that reads from below to above."""
    mask = Image.new("L", (text_width(text, size) + 2, size + 6))
    ImageDraw.Draw(mask).text((mask.width / 2, mask.height / 2), text, 255, font(size), anchor="mm")
    mask = mask.rotate(90, expand=True)
    canvas.paste(INK, (round(middle[0] - mask.width / 2), round(middle[1] - mask.height / 2)), mask)


def _dots(panel: Panel, marks: Marks, canvas: Image.Image, unit: float) -> Image.Image:
    """Discs, blended by how many cover a pixel: independent of their order."""
    width, height = canvas.size
    radius = marks.size * unit
    reach = math.ceil(radius)
    dy, dx = np.indices((2 * reach + 1, 2 * reach + 1)) - reach
    inside = dx**2 + dy**2 <= radius**2
    x, y = panel.place(marks.x, marks.y, (0, 0, *canvas.size))
    near = np.isfinite(x) & np.isfinite(y) & (np.abs(x - width / 2) < width) & (np.abs(y - height / 2) < height)
    column = np.floor(x[near])[:, None].astype(int) + dx[inside]
    row = np.floor(y[near])[:, None].astype(int) + dy[inside]
    visible = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    counts = np.bincount((row * width + column)[visible], minlength=width * height).reshape(height, width)
    cover = np.rint(255 * (1 - (1 - marks.opacity) ** counts)).astype(np.uint8)
    return Image.composite(Image.new("RGB", canvas.size, marks.color), canvas, Image.fromarray(cover))


def _line(panel: Panel, marks: Marks, canvas: Image.Image, unit: float) -> Image.Image:
    x, y = thinned(*panel.place(marks.x, marks.y, (0, 0, *canvas.size)), columns=2 * canvas.width)
    draw = ImageDraw.Draw(canvas)
    finite = np.isfinite(x) & np.isfinite(y)
    far = 4 * max(canvas.size)  # Pillow's lines go wrong at places of billions of pixels
    x, y = np.clip(x, -far, far), np.clip(y, -far, far)
    for piece in np.split(np.arange(len(x)), np.flatnonzero(np.diff(finite)) + 1):
        if len(piece) and finite[piece[0]]:
            places = list(zip(x[piece].tolist(), y[piece].tolist()))
            if len(places) == 1:
                draw.circle(places[0], marks.size * unit, marks.color)
            draw.line(places, marks.color, max(1, round(marks.size * unit)), joint="curve")
    return canvas


def thinned(x: Array, y: Array, columns: int) -> tuple[Array, Array]:
    """A long line -> the lowest and the highest of each of ``columns`` runs of it, which looks the same."""
    run = len(x) // columns
    if run < 4:
        return x, y
    kept = len(x) // run * run
    runs = np.where(np.isfinite(y), y, 0)[:kept].reshape(-1, run)
    chosen = np.sort(np.stack([runs.argmin(1), runs.argmax(1)], axis=1), axis=1) + run * np.arange(len(runs))[:, None]
    index = np.append(chosen.ravel(), np.arange(kept, len(x)))
    return x[index], y[index]


def _arrows(panel: Panel, marks: Marks, canvas: Image.Image, unit: float) -> Image.Image:
    assert marks.end is not None
    draw = ImageDraw.Draw(canvas)
    x, y = panel.place(marks.x, marks.y, (0, 0, *canvas.size))
    x_end, y_end = panel.place(marks.end[:, 0], marks.end[:, 1], (0, 0, *canvas.size))
    for x0, y0, x1, y1 in np.stack([x, y, x_end, y_end], axis=1).tolist():
        length = math.hypot(x1 - x0, y1 - y0)
        head = min(4 * unit, 0.5 * length)
        if length < 1:
            continue
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        x2, y2 = x1 - head * ux, y1 - head * uy
        draw.line([(x0, y0), (x2, y2)], marks.color, max(1, round(0.8 * unit)))
        half = 0.5 * head
        draw.polygon([(x1, y1), (x2 - half * uy, y2 + half * ux), (x2 + half * uy, y2 - half * ux)], marks.color)
    return canvas


def _bars(panel: Panel, marks: Marks, canvas: Image.Image, unit: float) -> Image.Image:
    draw = ImageDraw.Draw(canvas)
    x, top = panel.place(marks.x, marks.y, (0, 0, *canvas.size))
    bottom = float(panel.place(marks.x[:1], np.zeros(1), (0, 0, *canvas.size))[1][0])
    for left, right, high in zip(x[:-1], x[1:], top[:-1]):
        if high < bottom:
            draw.rectangle([left, high, max(left, right - unit / 2), bottom], marks.color)
    return canvas


DRAW = {"dots": _dots, "line": _line, "arrows": _arrows, "bars": _bars}
