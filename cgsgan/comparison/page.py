"""A comparison for people: pictures, a page, a table."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import torch

from cgsgan.cameras import orbit
from cgsgan.comparison.contestants import Contestant
from cgsgan.comparison.measurements import Comparison, Value
from cgsgan.export.atomic import atomic_path
from cgsgan.export.images import save_grid
from cgsgan.export.pages import html_image, html_table, save_page
from cgsgan.film import save_turntable
from cgsgan.gallery import (
    LARGEST_TILE,
    SCENES_AT_ONCE,
    generate_scenes,
    latents_from_seeds,
    render_views,
)

VIEWS = (-40.0, 0.0, 40.0)
"""Yaw in degrees of the columns of each contestant."""
HEADINGS = {
    "Pictures against real ones": ("fid", "frd", "kid", "precision", "recall", "swd"),
    "Views of one head against each other": ("consistency", "similarity", "identity"),
    "Shape against real heads": ("depth",),
}
"""Of groups of figures, and how their names begin."""
TURNING_HEADS = 4
TURNTABLE_FRAMES = 32


def save_comparison(
    folder: Path, contestants: Sequence[Contestant], found: Comparison, *, seeds: Sequence[int], psi: float
) -> dict[str, Path]:
    """Write ``compare.png``, ``compare.json`` and ``compare.html``; the page holds everything itself.

    Args:
        folder: made when it is not there.
        contestants: in the order of ``found``.
        found: the figures.
        seeds: heads to show of each.
        psi: truncation.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"compare.{name}" for name in ("png", "json", "html")}
    _save_grid(files["png"], contestants, seeds, psi)
    with atomic_path(files["json"]) as partial:
        partial.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    turning = [html_image(_turntable(entrant, seeds, psi), "webp", entrant.name) for entrant in contestants]
    captions = f"{', '.join(found.names)}: yaw {', '.join(f'{yaw:g}' for yaw in VIEWS)} degrees; seeds in rows"
    save_page(
        files["html"],
        _listed(found.names),
        [
            *((heading, f'<div class="wide">{_table(found.names, rows)}</div>') for heading, rows in _groups(found)),
            ("What this does not say", f"<ul>{notes}</ul>"),
            ("The same cameras", html_image(files["png"].read_bytes(), "png", captions)),
            ("Turning", "\n".join(turning)),
        ],
    )
    return files


def format_value(value: Value) -> str:
    """A figure as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _groups(found: Comparison) -> list[tuple[str, dict[str, list[Value]]]]:
    """Rows under the headings of the page; what has none stands in a table of its own."""
    groups: dict[str, dict[str, list[Value]]] = {"": {}, **{heading: {} for heading in HEADINGS}}
    measured = {name for quality in found.quality for name in quality["figures"]}
    for label, values in found.rows.items():
        headings = (heading for heading, starts in HEADINGS.items() if label in measured and label.startswith(starts))
        groups[next(headings, "")][label] = values
    return [(heading, rows) for heading, rows in groups.items() if rows]


def _table(names: Sequence[str], rows: Mapping[str, Sequence[Value]]) -> str:
    """Columns of equal width; long names and places are broken anywhere, so that four stand side by side."""
    narrow = ' style="overflow-wrap: anywhere; text-align: right"'
    width = f'<col style="width: {100 / (len(names) + 1.6):.1f}%">' * len(names)
    lines = [
        [
            "<th></th>",
            *(
                f'<th style="white-space: normal; overflow-wrap: anywhere; text-align: right">{escape(n)}</th>'
                for n in names
            ),
        ]
    ]
    for label, values in rows.items():
        cells = [
            f"<td{narrow}>{escape(value)}</td>"
            if isinstance(value, str)
            else f'<td class="number">{format_value(value)}</td>'
            for value in values
        ]
        lines.append([f"<th>{escape(label)}</th>", *cells])
    return html_table(lines).replace("<table>", f'<table style="width: 100%"><col>{width}', 1)


def _tile(contestants: Sequence[Contestant]) -> int:
    return min(max(entrant.generator.resolution for entrant in contestants), LARGEST_TILE)


def _save_grid(path: Path, contestants: Sequence[Contestant], seeds: Sequence[int], psi: float) -> None:
    """Seeds in rows; all views of one contestant, then all of the next, in columns."""
    size, yaw = _tile(contestants), torch.tensor(VIEWS).deg2rad()
    cameras = orbit(yaw, torch.zeros_like(yaw))
    blocks = []
    for entrant in contestants:
        generator = entrant.generator
        device = next(generator.parameters()).device
        z = latents_from_seeds(seeds, generator.z_dim).to(device)
        parts = [
            render_views(
                generator.renderer, generate_scenes(generator, part, truncation_psi=psi), cameras, size=size
            ).cpu()
            for part in z.split(SCENES_AT_ONCE)  # bounds the memory of large networks
        ]
        blocks.append(torch.cat(parts))
    labels = [entrant.name if index == 0 else "" for entrant in contestants for index in range(len(VIEWS))]
    images = torch.cat(blocks, dim=1).flatten(0, 1)
    save_grid(path, images, columns=len(labels), labels=labels)


def _turntable(entrant: Contestant, seeds: Sequence[int], psi: float) -> bytes:
    generator = entrant.generator
    device = next(generator.parameters()).device
    z = latents_from_seeds(seeds[:TURNING_HEADS], generator.z_dim).to(device)
    scenes = generate_scenes(generator, z, truncation_psi=psi)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "turntable.webp"
        size = min(max(generator.resolution, 128), LARGEST_TILE)
        save_turntable(path, generator.renderer, scenes, size=size, frames=TURNTABLE_FRAMES)
        return path.read_bytes()
