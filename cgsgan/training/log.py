"""Reading ``log.jsonl`` and cutting it back to a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cgsgan.export.atomic import atomic_path


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a log, oldest first; a line that a killed process left half written is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def trim_log(path: Path, kimg: float) -> None:
    """Drop the rows of images that will be seen again, and torn lines; rows of events (a key ``event``) stay.

    Args:
        path: the log; it need not exist.
        kimg: where training goes on.
    """
    if not path.is_file():
        return
    kept = [row for row in read_log(path) if "event" in row or float(row.get("kimg", 0.0)) <= kimg + 5e-4]
    with atomic_path(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
