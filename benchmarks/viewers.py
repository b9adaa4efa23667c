"""Our files in the viewers that people use: how near their pictures come to ours, and how long they take.

    npm ci --prefix tests/viewers && python -m benchmarks.viewers

Every format of the axis balls and of a head of the generator that comes with cgsgan, in every viewer that reads it, all
of them in software. Needs Node 20, Debian's chromium and playwright. Writes ``benchmarks/results/viewers.json`` and a
contact sheet, ``viewers.webp``: what each viewer shows, ours first.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from cgsgan import load_generator
from cgsgan.export.images import make_grid, to_uint8
from cgsgan.types import Gaussians
from tests.chromium import launch
from tests.viewers.axis_balls import axis_balls
from tests.viewers.clients import missing_viewers, versions
from tests.viewers.pictures import THREE_QUARTER, draw
from tests.viewers.proofs import (
    GATES,
    HEAD_VIEW,
    PROOFS,
    SIZE,
    Outcome,
    Proof,
    baked_head,
    open_file,
    write_file,
)

RESULTS = Path(__file__).parent / "results"
COLUMNS = 8


def head_proofs() -> list[Proof]:
    """A head in every format, and in every viewer once; in Spark also as it keeps colours above 1."""
    seen, chosen = set(), []
    for proof in PROOFS:
        format_name = proof.name.partition(": ")[2]
        if format_name not in seen or proof.client not in {other.client for other in chosen}:
            chosen.append(replace(proof, file=proof.file.replace("balls", "head"), view=HEAD_VIEW))
        seen.add(format_name)
    return chosen + [replace(proof, extended=True) for proof in chosen if proof.client == "spark"]


def measure(proofs: list[Proof], scene: Gaussians, folder: Path) -> list[tuple[Proof, Outcome]]:
    """Each proof once, in a browser for all of them."""
    outcomes = []
    with launch() as browser:
        for proof in proofs:
            path = write_file(proof, scene, folder / str(len(outcomes)))
            outcome = open_file(proof, path, scene, SIZE, browser=browser, bundles=folder)
            print(f"{proof.file}: {proof.name}: {outcome.scores} {outcome.seconds:.1f} s", flush=True)
            outcomes.append((proof, outcome))
    return outcomes


def row(model: str, proof: Proof, outcome: Outcome) -> dict[str, object]:
    gate = GATES[proof.client] if model == "balls" else None  # of heads the colours above 1 decide, see README.md
    return {
        "model": model,
        "viewer": proof.client,
        "file": proof.name.partition(": ")[2],
        "turned": proof.turned,
        "psnr_std": round(outcome.scores.std, 2),
        "psnr_aa": round(outcome.scores.aa, 2),
        "ssim": round(outcome.scores.ssim, 4),
        "gate": None if gate is None else "missed" if outcome.scores.failure(gate) else "passed",
        "seconds": round(outcome.seconds, 1),
    }


def show(rows: list[dict[str, object]]) -> None:
    table = Table(*rows[0])
    for values in rows:
        table.add_row(*map(str, values.values()))
    Console(width=120).print(table)


def save_sheet(pictures: list[torch.Tensor], columns: int) -> None:
    from PIL import Image

    small = torch.nn.functional.interpolate(torch.stack(pictures), size=(160, 160), mode="area")
    Image.fromarray(to_uint8(make_grid(small, columns=columns))).save(RESULTS / "viewers.webp", quality=80)


def main() -> None:
    missing = missing_viewers()
    if missing:
        sys.exit(f"viewers.py: {missing}")
    models = {"balls": (axis_balls(), list(PROOFS), THREE_QUARTER)}
    models["head"] = (baked_head(load_generator()), head_proofs(), HEAD_VIEW)
    rows, pictures = [], []
    for model, (scene, proofs, view) in models.items():
        pictures.append(draw(scene, view, SIZE, antialiased=False))
        with tempfile.TemporaryDirectory() as folder:
            outcomes = measure(proofs, scene, Path(folder))
        rows += [row(model, proof, outcome) for proof, outcome in outcomes]
        pictures += [outcome.image for _, outcome in outcomes]
        pictures += [torch.zeros_like(pictures[0])] * (-len(pictures) % COLUMNS)
        save_sheet(pictures, COLUMNS)
        figures = {"pixels": SIZE, "versions": versions(), "rows": rows}
        (RESULTS / "viewers.json").write_text(json.dumps(figures, indent=2) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
