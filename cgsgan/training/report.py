"""One self-contained HTML page about a run: everything is embedded, nothing is fetched, no script runs."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from cgsgan.export.charts import draw_panels
from cgsgan.export.pages import html_image, html_table, save_page
from cgsgan.training.checkpoint import list_checkpoints, read_best
from cgsgan.training.curves import curve_panels
from cgsgan.training.log import read_log
from cgsgan.training.run_folder import RunFolder, RunFolderError

SHEETS = 8
"""Sample sheets shown, evenly over the run; the first and the last are always among them."""
ROWS = 12
WIDEST = 1400


def write_report(run: RunFolder, path: Path) -> None:
    """Write the page.

    Args:
        run: finished or not; what it does not have yet is left out.
        path: the .html file.

    Raises:
        RunFolderError: when the folder holds no run.
    """
    if not run.config.is_file():
        raise RunFolderError(f"{run.path}: not a run folder (it has no {run.config.name})")
    config_text = run.config.read_text(encoding="utf-8")
    rows = read_log(run.log)
    sections = [
        ("", _facts(run, yaml.safe_load(config_text), rows)),
        ("Curves", _curves(rows)),
        ("Turntable", _turntable(run.path / "turntable.webp")),
        ("Samples", _samples(sorted(run.samples.glob("*.png")))),
        ("Events", _events(rows)),
        ("Checkpoints", _checkpoints(run)),
        ("Last log rows", _last_rows(rows)),
        ("Config", f"<details><summary>{run.config.name}</summary><pre>{escape(config_text)}</pre></details>"),
    ]
    save_page(path, run.path.resolve().name, sections)


def _facts(run: RunFolder, config: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    scalars = [row for row in rows if "event" not in row and "kimg" in row]
    rates = [float(row["images_per_second"]) for row in scalars if "images_per_second" in row]
    training, data = config.get("training") or {}, config.get("data") or {}
    facts = [
        ("experiment", f"{config.get('name')}, {config.get('resolution')} px"),
        ("data", data.get("path") or "procedural heads"),
        ("trained", f"{scalars[-1]['kimg'] if scalars else 0:g} of {training.get('kimg')} kimg"),
        (
            "batch, views, seed",
            f"{training.get('batch_size')}, {training.get('views_per_scene')}, {training.get('seed')}",
        ),
    ]
    if rates:
        facts.append(("images per second", f"{statistics.median(rates):.1f} (median), {rates[-1]:.1f} (last)"))
    times = [float(row["time"]) for row in rows if "time" in row]
    if len(times) > 1:
        facts.append(("first to last log row", f"{(times[-1] - times[0]) / 3600:.2f} hours, pauses included"))
    best = read_best(run.checkpoints)
    if best:
        facts.append(("best", f"{best['metric']} {best['value']:.4g} at {best['checkpoint']}"))
    return html_table([[f"<th>{escape(name)}</th>", f"<td>{escape(str(value))}</td>"] for name, value in facts])


def _curves(rows: Sequence[dict[str, Any]]) -> str:
    panels = curve_panels(rows)
    if not panels:
        return ""
    buffer = io.BytesIO()
    draw_panels(panels, x_label="kimg").save(buffer, "PNG", optimize=True)
    return html_image(buffer.getvalue(), "png", "curves of the log")


def _turntable(path: Path) -> str:
    return html_image(path.read_bytes(), "webp", "heads turning") if path.is_file() else ""


def _samples(sheets: Sequence[Path]) -> str:
    count = min(SHEETS, len(sheets))
    chosen = [sheets[round(i * (len(sheets) - 1) / max(count - 1, 1))] for i in range(count)]
    figures = []
    for sheet in reversed(chosen):  # the newest first
        with Image.open(sheet) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((WIDEST, 4 * WIDEST), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=85)
        figures.append(html_image(buffer.getvalue(), "webp", sheet.stem))
    return "\n".join(figures)


def _events(rows: Sequence[dict[str, Any]]) -> str:
    return "\n".join(
        f'<p class="event">{escape(str(row.get("text", row["event"])))}</p>' for row in rows if "event" in row
    )


def _checkpoints(run: RunFolder) -> str:
    lines = [["<th>name</th>", "<th>MB</th>"]]
    for path in list_checkpoints(run.checkpoints):
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        lines.append([f"<td>{escape(path.name)}</td>", f'<td class="number">{size:.1f}</td>'])
    return html_table(lines) if len(lines) > 1 else ""


def _last_rows(rows: Sequence[dict[str, Any]]) -> str:
    shown = [row for row in rows if "event" not in row][-ROWS:]
    keys = [key for key in dict.fromkeys(key for row in shown for key in row) if key != "time"]
    lines = [[f"<th>{escape(key)}</th>" for key in keys]]
    lines += [[f'<td class="number">{escape(_number(row.get(key)))}</td>' for key in keys] for row in shown]
    return f'<div class="wide">{html_table(lines)}</div>' if shown else ""


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
