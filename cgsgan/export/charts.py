"""Line charts drawn with Pillow, which is here anyway; a plotting library would be the heaviest dependency of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cgsgan.export.atomic import atomic_path

WIDTH, HEIGHT = 560, 300
"""Of one panel, pixels."""
LEFT, RIGHT, TOP, BOTTOM = 64.0, 14.0, 50.0, 40.0
"""Margins around the curves: tick labels, title and legend."""
SCALE = 2
"""Everything is drawn this many times larger and reduced, for smooth lines."""
INK, GRID, PAPER, MARK = (40, 40, 40), (228, 228, 228), (255, 255, 255), (190, 60, 60)
COLORS = ((31, 119, 180), (214, 96, 20), (44, 140, 60), (130, 80, 170), (120, 120, 120), (0, 150, 160))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line.

    Attributes:
        name: for the legend.
        points: (x, y), by rising x; a y that is not finite (or not positive on a logarithmic axis) leaves a gap.
    """

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves on common axes.

    Attributes:
        title: above them.
        curves: at most as many as there are colours are told apart.
        logarithmic: the y axis in powers of ten.
        marks: places on the x axis with a red line.
    """

    title: str
    curves: Sequence[Curve]
    logarithmic: bool = False
    marks: Sequence[float] = ()


def draw_panels(panels: Sequence[Panel], *, x_label: str, columns: int = 2) -> Image.Image:
    """All panels side by side and below each other, each on axes of its own.

    Raises:
        ValueError: without any panel.
    """
    if not panels:
        raise ValueError("draw_panels: expected at least one panel")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * WIDTH, rows * HEIGHT), PAPER)
    for index, panel in enumerate(panels):
        picture = _Canvas(panel).draw(x_label).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        sheet.paste(picture, (index % columns * WIDTH, index // columns * HEIGHT))
    return sheet


def save_panels(path: Path, panels: Sequence[Panel], *, x_label: str, columns: int = 2) -> None:
    """Write :func:`draw_panels` as PNG, atomically."""
    with atomic_path(path) as partial:
        draw_panels(panels, x_label=x_label, columns=columns).save(partial, format="PNG")


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that lie in [low, high], about ``count`` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= count)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class _Canvas:
    """One panel, drawn ``SCALE`` times larger."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._curves = [[(x, self._height(y)) for x, y in curve.points if math.isfinite(x)] for curve in panel.curves]
        shown = [point for curve in self._curves for point in curve if math.isfinite(point[1])]
        self._x = _range([x for x, _ in shown] + list(panel.marks), room=0.0)
        self._y = _range([y for _, y in shown], room=0.05)
        self._image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
        self._pen = ImageDraw.Draw(self._image)

    def draw(self, x_label: str) -> Image.Image:
        self._text(LEFT, 8.0, self._panel.title, size=15)
        self._axes(x_label)
        for mark in self._panel.marks:
            self._line([(mark, self._y[0]), (mark, self._y[1])], MARK)
        at = LEFT
        for index, (curve, points) in enumerate(zip(self._panel.curves, self._curves, strict=True)):
            color = COLORS[index % len(COLORS)]
            self._curve(points, color)
            self._pen.rectangle([v * SCALE for v in (at, 35, at + 16, 38)], fill=color)
            at += 22 + self._text(at + 20, 29.0, curve.name, color=color) + 10
        return self._image

    def _height(self, y: float) -> float:
        if not self._panel.logarithmic:
            return y
        return math.log10(y) if math.isfinite(y) and y > 0 else math.nan

    def _axes(self, x_label: str) -> None:
        for y in self._y_ticks():
            self._line([(self._x[0], y), (self._x[1], y)], GRID)
            label = f"{10**y:.3g}" if self._panel.logarithmic else f"{y:.4g}"
            self._text(LEFT - 6, self._place(0.0, y)[1] / SCALE - 7, label, anchor="ra")
        for x in ticks(*self._x):
            self._line([(x, self._y[0]), (x, self._y[1])], GRID)
            self._text(self._place(x, 0.0)[0] / SCALE, HEIGHT - BOTTOM + 4, f"{x:.6g}", anchor="ma")
        self._text(WIDTH - RIGHT, HEIGHT - 18.0, x_label, anchor="ra")
        corners = [(self._x[0], self._y[1]), (self._x[0], self._y[0]), (self._x[1], self._y[0])]
        self._line(corners, INK)

    def _y_ticks(self) -> list[float]:
        low, high = self._y
        if not self._panel.logarithmic or high - low > 2:
            found = ticks(low, high)
            return [y for y in found if y == round(y)] if self._panel.logarithmic else found
        powers = range(math.floor(low), math.ceil(high) + 1)
        places = [power + math.log10(digit) for power in powers for digit in (1, 2, 5)]
        inside = [y for y in places if low <= y <= high]
        # Within less than half a decade no such number may lie; then the ends are named.
        return inside if len(inside) > 1 else [low, high]

    def _curve(self, points: Sequence[tuple[float, float]], color: tuple[int, int, int]) -> None:
        run: list[tuple[float, float]] = []
        for point in [*points, (0.0, math.nan)]:
            if math.isfinite(point[1]):
                run.append(point)
                continue
            if len(run) == 1:
                x, y = self._place(*run[0])
                self._pen.ellipse([x - 2 * SCALE, y - 2 * SCALE, x + 2 * SCALE, y + 2 * SCALE], fill=color)
            elif run:
                self._line(run, color, width=1.6)
            run = []

    def _place(self, x: float, y: float) -> tuple[float, float]:
        right = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        across, down = LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
        return across * SCALE, down * SCALE

    def _line(self, points: Sequence[tuple[float, float]], color: tuple[int, int, int], *, width: float = 1.0) -> None:
        self._pen.line([self._place(*point) for point in points], color, round(width * SCALE), joint="curve")

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 12,
        color: tuple[int, int, int] = INK,
        anchor: str = "la",
    ) -> float:
        """Write; returns the width in pixels."""
        font = ImageFont.load_default(size * SCALE)
        self._pen.text((x * SCALE, y * SCALE), text, fill=color, font=font, anchor=anchor)
        return self._pen.textlength(text, font=font) / SCALE


def _range(values: Sequence[float], *, room: float) -> tuple[float, float]:
    """Least and greatest, never equal, with some room."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        wider = max(abs(low) * 0.1, 1e-6)
        return low - wider, high + wider
    return low - room * (high - low), high + room * (high - low)
