"""Histograms as a picture and as a table, drawn with nothing but Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

_WIDTH, _HEIGHT, _MARGIN, _TITLE = 320, 150, 16, 18
_BINS = 40
_COLOURS = ((70, 110, 170), (220, 130, 40))


def histogram_sheet(columns: Mapping[str, Sequence[Float[np.ndarray, " _"]]], units: Mapping[str, str]) -> Image.Image:
    """One histogram for each name, in rows of three.

    Args:
        columns: one array of values, or two (before, after: drawn as an outline over the bars, each scaled to its own
            number of values).
        units: words below the names.
    """
    per_row = min(3, len(columns))
    rows = math.ceil(len(columns) / per_row)
    sheet = Image.new("RGB", (per_row * _WIDTH, rows * _HEIGHT), "white")
    for position, (name, series) in enumerate(columns.items()):
        corner = (position % per_row * _WIDTH, position // per_row * _HEIGHT)
        _draw(ImageDraw.Draw(sheet), corner, f"{name} [{units[name]}]" if name in units else name, series)
    return sheet


def describe(columns: Mapping[str, Float[np.ndarray, " _"]], units: Mapping[str, str]) -> str:
    """A line of mean, smallest, median and largest for each name."""
    lines = [f"{'':14s} {'mean':>8s} {'min':>8s} {'1 %':>8s} {'median':>8s} {'99 %':>8s} {'max':>8s}"]
    for name, values in columns.items():
        numbers = (values.mean(), values.min(), *np.percentile(values, (1, 50, 99)), values.max())
        lines.append(f"{name:14s} " + " ".join(f"{number:8.3f}" for number in numbers) + f"  {units.get(name, '')}")
    return "\n".join(lines)


def _draw(draw: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, series: Sequence[np.ndarray]) -> None:
    left, top = corner[0] + _MARGIN, corner[1] + _TITLE
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - _TITLE - _MARGIN
    draw.text((left, corner[1] + 2), title, fill="black", font_size=11)
    low, high = min(float(v.min()) for v in series), max(float(v.max()) for v in series)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    shares = [np.histogram(values, bins=_BINS, range=(low, high))[0] / len(values) for values in series]
    highest = max(float(share.max()) for share in shares)
    base = top + height
    edges = left + np.linspace(0, width, _BINS + 1)
    for number, (share, colour) in enumerate(zip(shares, _COLOURS, strict=False)):
        tops = base - share / highest * height
        if number == 0:
            for bar, x0, x1 in zip(tops, edges, edges[1:]):
                draw.rectangle((x0, bar, max(x1 - 1, x0), base), fill=colour)
        else:
            draw.line(list(zip(np.repeat(edges, 2)[1:-1], np.repeat(tops, 2))), fill=colour, width=2)
    draw.line((left, base, left + width, base), fill="black")
    draw.text((left, base + 2), f"{low:.3g}", fill="black", font_size=10)
    draw.text((left + width, base + 2), f"{high:.3g}", fill="black", font_size=10, anchor="ra")
