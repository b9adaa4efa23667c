"""One self-contained HTML page about a run: everything is embedded, nothing is fetched, no script runs."""

from __future__ import annotations

import base64
import io
import json
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from cgsgan.export.atomic import atomic_path
from cgsgan.export.charts import draw_panels
from cgsgan.training.checkpoint import list_checkpoints, read_best
from cgsgan.training.curves import curve_panels
from cgsgan.training.log import read_log
from cgsgan.training.run_folder import RunFolder, RunFolderError

SHEETS = 8
"""Sample sheets shown, evenly over the run; the first and the last are always among them."""
ROWS = 12
WIDEST = 1400
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1160px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: 2px 12px 2px 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } th { font-weight: 600; white-space: nowrap; }
.wide { overflow-x: auto; } img { max-width: 100%; height: auto; } figure { margin: 1em 0; }
figcaption { color: #666; font-size: 13px; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 13px; }
.event { color: #a33; }
"""


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
    body = "\n".join(f"{f'<h2>{title}</h2>' if title else ''}\n{content}" for title, content in sections if content)
    name = escape(run.path.resolve().name)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{name}</h1>\n{body}\n</body></html>\n"
    )
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8")


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
    return _table([[f"<th>{escape(name)}</th>", f"<td>{escape(str(value))}</td>"] for name, value in facts])


def _curves(rows: Sequence[dict[str, Any]]) -> str:
    panels = curve_panels(rows)
    if not panels:
        return ""
    buffer = io.BytesIO()
    draw_panels(panels, x_label="kimg").save(buffer, "PNG", optimize=True)
    return _image(buffer.getvalue(), "png", "curves of the log")


def _turntable(path: Path) -> str:
    return _image(path.read_bytes(), "webp", "heads turning") if path.is_file() else ""


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
        figures.append(_image(buffer.getvalue(), "webp", sheet.stem))
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
    return _table(lines) if len(lines) > 1 else ""


def _last_rows(rows: Sequence[dict[str, Any]]) -> str:
    shown = [row for row in rows if "event" not in row][-ROWS:]
    keys = [key for key in dict.fromkeys(key for row in shown for key in row) if key != "time"]
    lines = [[f"<th>{escape(key)}</th>" for key in keys]]
    lines += [[f'<td class="number">{escape(_number(row.get(key)))}</td>' for key in keys] for row in shown]
    return f'<div class="wide">{_table(lines)}</div>' if shown else ""


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "<table>" + "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in lines) + "</table>"


def _image(content: bytes, kind: str, caption: str) -> str:
    data = base64.b64encode(content).decode()
    text = escape(caption)
    return f'<figure><img src="data:image/{kind};base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>'
