"""Plots of samples and of results, with Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from unstir.media.axes import COLORS, TEXT, Array, Limits, Panel, span, upright
from unstir.media.grid import best_columns
from unstir.media.text import INK, fit_text, font, plain, text_width

Data = np.ndarray[Any, Any]
GREY = "#c3c8d2"


@dataclass
class Figure:
    """Panels in rows.

    Args:
        rows: the panels.
        width, height: of each panel's frame, in pixels.
        title: above all.
        row_labels: upright, left of each row.
        legend: colour by name, on a line above the panels.
        gap: pixels between frames; room for numbers, labels and titles is added where a panel has them.
    """

    rows: Sequence[Sequence[Panel]]
    width: int = 240
    height: int = 240
    title: str = ""
    row_labels: Sequence[str] = ()
    legend: Mapping[str, str] | None = None
    gap: int = 14

    def draw(self, scale: float = 2) -> Image.Image:
        """The figure, every length ``scale`` times as large: 2 is sharp on today's screens."""

        def px(length: float) -> int:
            return round(length * scale)

        panels = [panel for row in self.rows for panel in row]
        numbers, text = any(p.numbers for p in panels), px(TEXT)
        before = self.gap / 2 + (38 if numbers else 0) + (18 if any(p.y_label for p in panels) else 0)
        above = [self.gap / 2 + (20 if any(p.title for p in row) else 0) for row in self.rows]
        below = self.gap / 2 + (18 if numbers else 0) + (16 if any(p.x_label for p in panels) else 0)
        names = 24 if self.row_labels else 0
        head = (26 if self.title else 0) + (22 if self.legend else 0)
        step_x = before + self.width + self.gap / 2
        tops = [head + sum(above[: i + 1]) + i * (self.height + below) for i in range(len(self.rows))]
        size = (
            px(names + step_x * max(map(len, self.rows)) + self.gap / 2),
            px(tops[-1] + self.height + below + self.gap / 2),
        )
        canvas = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(canvas)
        if self.title:
            draw.text((size[0] / 2, px(18)), fit_text(self.title, px(15), size[0]), INK, font(px(15)), anchor="mm")
        if self.legend:
            _legend(canvas, self.legend, size[0], px(head - 10), text)
        for i, row in enumerate(self.rows):
            top = tops[i]
            for j, panel in enumerate(row):
                left = names + j * step_x + before
                panel.draw(canvas, (px(left), px(top), px(left + self.width), px(top + self.height)), text)
            if i < len(self.row_labels):
                name = fit_text(self.row_labels[i], px(TEXT + 1), px(self.height))
                upright(canvas, name, px(TEXT + 1), (px(14), px(top + self.height / 2)))
        return canvas


def _legend(canvas: Image.Image, legend: Mapping[str, str], width: int, y: int, text: int) -> None:
    names = [plain(name) for name in legend]
    widths = [text_width(name, text) + 2.4 * text for name in names]
    x = max(text / 2, (width - sum(widths)) / 2)
    dot = Image.new("L", (8 * text, 8 * text))
    ImageDraw.Draw(dot).ellipse((0, 0, 8 * text - 1, 8 * text - 1), 255)
    dot = dot.resize((round(0.7 * text), round(0.7 * text)), Image.Resampling.LANCZOS)
    for name, color, step in zip(names, legend.values(), widths):
        canvas.paste(color, (round(x), y - dot.height // 2), dot)
        ImageDraw.Draw(canvas).text((x + text, y), name, INK, font(text), anchor="lm")
        x += step


def points_plot(
    x: Data,
    names: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    like: Data | None = None,
    title: str = "",
    scale: float = 2,
) -> Image.Image:
    """Points (N, D): a histogram for D = 1, a scatter plot for D = 2, all pairs for D = 3 to 5, the first five for more.

    Args:
        names: of the coordinates.
        classes: each point's class, shown by colour.
        like: points that set the limits (default: x).
    """
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    like = x if like is None else np.asarray(like, np.float64).reshape(len(like), -1)
    dims = min(x.shape[1], 5)
    names = [*names[:dims], *(f"x{i}" for i in range(len(names), dims))] if dims > 2 or names else ["", ""]
    limits = [span(like[:, i]) for i in range(dims)]
    groups, legend = _groups(x, classes)
    if dims == 1:
        panel = Panel(title, x_label=names[0], y_label="count", x_limits=limits[0])
        heights, edges = np.histogram(x[:, 0], bins=max(10, min(60, round(2 * len(x) ** 0.4))), range=limits[0])
        return Figure([[panel.bars(edges, heights)]], 420, 260).draw(scale)
    if dims == 2:
        panel = Panel(title, names[0], names[1], limits[0], limits[1], equal=_similar(limits))
        return Figure([[_scattered(panel, groups, (0, 1), len(x))]], 380, 380, legend=legend).draw(scale)
    rows = [[_pair(groups, i, j, names, limits, len(x)) for j in range(dims - 1) if j < i] for i in range(1, dims)]
    return Figure(rows, 170, 170, title, legend=legend).draw(scale)


def _similar(limits: Sequence[Limits]) -> bool:
    """Whether both axes are of about the same length: then a unit is drawn as long on both, and a circle is round."""
    lengths = [high - low for low, high in limits]
    return max(lengths) < 2.5 * min(lengths)


def _groups(x: Array, classes: Sequence[str] | None) -> tuple[dict[str, Array], dict[str, str] | None]:
    """Points by colour, and the legend; more classes than colours share one colour and have no legend."""
    known = list(dict.fromkeys(classes)) if classes is not None else []
    if classes is None or not 1 < len(known) <= len(COLORS):
        return {COLORS[0]: x}, None
    legend = {name: COLORS[i] for i, name in enumerate(sorted(known))}
    of = np.asarray(classes)
    return {color: x[of == name] for name, color in legend.items()}, legend


def _scattered(panel: Panel, groups: dict[str, Array], axes: tuple[int, int], n: int) -> Panel:
    """Many points are small and pale, few are large and full."""
    radius = 2.4 if n < 100 else 1.2 if n < 3000 else 0.9
    opacity = 0.9 if n < 100 else 0.55 if n < 10_000 else 0.35
    for color, points in groups.items():
        panel.scatter(points[:, axes], color, radius, opacity)
    return panel


def _pair(groups: dict[str, Array], i: int, j: int, names: Sequence[str], limits: Sequence[Limits], n: int) -> Panel:
    panel = Panel("", names[j], names[i], limits[j], limits[i])
    return _scattered(panel, groups, (j, i), n)


def signal_grid(
    x: Data,
    fs: float | None = None,
    channels: Sequence[str] = (),
    titles: Sequence[str] | None = None,
    like: Data | None = None,
    columns: int | None = None,
    scale: float = 1.5,
) -> Image.Image:
    """Signals (N, C, L), each in a panel of its own; all panels share their limits, so that heights can be compared.

    Up to three channels lie over each other, more lie in lanes under each other.

    Args:
        fs: samples a second; the axis is in seconds then.
        channels: names for the legend.
        titles: one for each signal.
        like: signals that set the limits (default: x).
    """
    x = np.asarray(x, np.float64)
    n, lanes, length = x.shape
    like = x if like is None else np.asarray(like, np.float64)
    low, high = span(like, margin=0.06)
    lift = np.zeros(lanes) if lanes <= 3 else -(high - low) * np.arange(lanes)
    columns = columns or best_columns(n, 2, 3)
    t = np.arange(length) / (fs or 1.0)
    few = n <= 4
    label = ("seconds" if fs else "sample") if few else ""
    panels: list[Panel] = []
    for i, signal in enumerate(x):
        panel = Panel(titles[i] if titles is not None else "", label, "", (t[0], t[-1] or 1.0), (low + lift[-1], high))
        panel.numbers = few and lanes <= 3  # in lanes, heights are shifted: no numbers that would be wrong
        for c in range(lanes):
            panel.line(
                t, signal[c] + lift[c], COLORS[c % len(COLORS)] if lanes <= 3 else COLORS[0], 1.2 if few else 0.9
            )
        panels.append(panel)
    rows = [panels[start : start + columns] for start in range(0, n, columns)]
    names = [*channels[:lanes], *(f"channel {i}" for i in range(len(channels), lanes))]
    legend = dict(zip(names, COLORS)) if 1 < lanes <= 3 else None
    tall = 1 if lanes <= 3 else min(3, lanes / 4)
    width, height = (360, 200 * tall) if few else (132, 84 * tall)
    return Figure(rows, width, round(height), legend=legend, gap=14 if few else 10).draw(scale)


def curves(
    series: Mapping[str, tuple[Sequence[float] | Data, Sequence[float] | Data]],
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    scale: float = 2,
) -> Image.Image:
    """Lines by name, {"EDM, Heun": (steps, distances), ...}, in one panel with a legend; up to 24 values are also dots."""
    panel = Panel("", x_label, y_label, log_x=log_x, log_y=log_y, grid=True)
    legend: dict[str, str] = {}
    for i, (name, (xs, ys)) in enumerate(series.items()):
        legend[name] = COLORS[i % len(COLORS)]
        panel.line(xs, ys, legend[name], 1.3)
        if len(xs) <= 24:
            panel.scatter(
                np.stack([np.asarray(xs, np.float64), np.asarray(ys, np.float64)], axis=1), legend[name], 2.6, 1.0
            )
    return Figure([[panel]], 520, 300, title, legend=legend if len(legend) > 1 else None).draw(scale)


def sohl_dickstein_figure(
    data: Data,
    diffused: Sequence[Data],
    reversed_: Sequence[Data],
    drift_positions: Sequence[Data],
    drift_vectors: Sequence[Data],
    times: Sequence[str],
    scale: float = 2,
) -> Image.Image:
    """Figure 1 of Sohl-Dickstein et al. 2015 (https://arxiv.org/abs/1503.03585), columns t = 0, T/2, T as there.

    Rows: slices of the forward trajectory q(x_t); of the trained reverse trajectory p(x_t), which ran from right to left; the
    drift that the reverse process applies, mean(x_t) - x_t. Every list has one array for each column, in the order of ``times``.

    Args:
        data: (N, 2), sets the limits and lies in grey under the reverse trajectory's end.
        diffused, reversed_: clouds (N, 2).
        drift_positions, drift_vectors: (M, 2) each; arrows are scaled in each panel by themselves.
        times: the columns' titles, such as ("t = 0", "t = T/2", "t = T").
    """
    reach = 1.15 * max(
        float(np.abs(np.asarray(cloud)).max()) for cloud in (data, np.percentile(diffused[-1], [0.5, 99.5]))
    )
    limits = (-reach, reach)
    rows: list[list[Panel]] = []
    for row, clouds in enumerate((diffused, reversed_)):
        rows.append([])
        for column, cloud in enumerate(clouds):
            panel = Panel(times[column] if row == 0 else "", x_limits=limits, y_limits=limits, numbers=False)
            if row == 1 and column == 0:
                panel.scatter(data, GREY, 0.8, 0.5)
            rows[-1].append(_scattered(panel, {COLORS[row]: np.asarray(cloud, np.float64)}, (0, 1), len(cloud)))
    arrows = [Panel(x_limits=limits, y_limits=limits, numbers=False) for _ in times]
    rows.append([p.quiver(at, along, COLORS[2]) for p, at, along in zip(arrows, drift_positions, drift_vectors)])
    names = ["forward  q(x)", "reverse  p(x)", "drift  mean - x"]
    return Figure(rows, 210, 210, row_labels=names, gap=10).draw(scale)
