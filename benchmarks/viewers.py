"""Our files in the viewers that people use: how near their pictures come to ours, and how long they take.

    npm ci --prefix tests/viewers && python -m benchmarks.viewers [--only head]

Every format of the axis balls and of a head of the generator that comes with cgsgan, in every viewer that reads it, all
of them in software. Needs Node 20, Debian's chromium and playwright. Writes ``benchmarks/results/viewers.json`` and a
contact sheet, ``viewers.webp``: what each viewer shows, ours first.
"""

from __future__ import annotations

import argparse
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
    fitted_head,
    open_file,
    write_file,
)

RESULTS = Path(__file__).parent / "results"
COLUMNS = 8
MODELS = ("balls", "head")


def head_proofs() -> list[Proof]:
    """A head in every format, and in every viewer once."""
    seen, chosen = set(), []
    for proof in PROOFS:
        format_name = proof.name.partition(": ")[2]
        if format_name not in seen or proof.client not in {other.client for other in chosen}:
            chosen.append(replace(proof, file=proof.file.replace("balls", "head"), view=HEAD_VIEW))
        seen.add(format_name)
    return chosen


def measure(proofs: list[Proof], written: Gaussians, scene: Gaussians, folder: Path) -> list[tuple[Proof, Outcome]]:
    """Each proof of what is written once, against our pictures of ``scene``; in a browser for all of them."""
    outcomes = []
    with launch() as browser:
        for proof in proofs:
            path = write_file(proof, written, folder / str(len(outcomes)))
            outcome = open_file(proof, path, scene, SIZE, browser=browser, bundles=folder)
            print(f"{proof.file}: {proof.name}: {outcome.scores} {outcome.seconds:.1f} s", flush=True)
            outcomes.append((proof, outcome))
    return outcomes


def row(model: str, proof: Proof, outcome: Outcome) -> dict[str, object]:
    gate = GATES[proof.client] if model == "balls" else None  # of heads the tails that viewers cut off decide
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


def save_sheet(pictures: list[torch.Tensor], columns: int, name: str) -> None:
    from PIL import Image

    small = torch.nn.functional.interpolate(torch.stack(pictures), size=(160, 160), mode="area")
    Image.fromarray(to_uint8(make_grid(small, columns=columns))).save(RESULTS / name, quality=80)


def main() -> None:
    missing = missing_viewers()
    if missing:
        sys.exit(f"viewers.py: {missing}")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODELS, default=None, help="the other rows stay as they are")
    only = parser.parse_args().only
    generator, file = load_generator(), RESULTS / "viewers.json"
    rows = [row for row in json.loads(file.read_text())["rows"] if row["model"] != only] if only else []
    pictures = []
    for model in [only] if only else MODELS:
        if model == "balls":
            written, proofs, view = axis_balls(), list(PROOFS), THREE_QUARTER
            scene = written
        else:
            written, scene, proofs, view = fitted_head(generator), baked_head(generator), head_proofs(), HEAD_VIEW
        pictures.append(draw(scene, view, SIZE, antialiased=False))
        with tempfile.TemporaryDirectory() as folder:
            outcomes = measure(proofs, written, scene, Path(folder))
        rows += [row(model, proof, outcome) for proof, outcome in outcomes]
        pictures += [outcome.image for _, outcome in outcomes]
        pictures += [torch.zeros_like(pictures[0])] * (-len(pictures) % COLUMNS)
        file.write_text(json.dumps({"pixels": SIZE, "versions": versions(), "rows": rows}, indent=2) + "\n")
    save_sheet(pictures, COLUMNS, f"viewers_{only}.webp" if only else "viewers.webp")
    show(rows)


if __name__ == "__main__":
    main()
