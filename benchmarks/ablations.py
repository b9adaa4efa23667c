"""What each part of the method is worth: small runs that differ in one setting each, at equal real pictures seen.

    python benchmarks/ablations.py --data heads128.zip --kimg 12 --out runs/ablations [--only views_4 ...] [--seeds 0 1]

A run that is finished is not run again, one that was cut off goes on: start it again and again. One thread per run.
Every row is `configs/heads32.yaml` (V = 2) but for what it names; `grown` and `direct` are its 64 px forms. Both
networks' rates fall over the last third of each run.

FRD and SWD as in heads64.py, on white: 2,048 pictures at the training size from the data's cameras against real ones.
`front` and `side` are FRD of the pictures with |yaw| below and above 15 degrees: a generator that puts its heads into
wrong poses shows there first. `colours` is FRD with a random colour behind every picture and `cover` the mean alpha:
what a generator hides in white on white shows there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from heads64 import COUNT
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.data.dataset import HeadDataset, open_dataset
from cgsgan.export.images import save_grid
from cgsgan.gallery import generate_scenes, latents_from_seeds, render_views
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.metrics.features import random_features
from cgsgan.metrics.frechet import relative_frechet_distance
from cgsgan.metrics.sliced_wasserstein import sliced_wasserstein_distance

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
MEASURED = "ablation.json"
SIDE_YAW = 15.0
"""Degrees; about half of the data's cameras are on either side of it."""
BLACK = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        name: of its run folders.
        says: what it is, for the table.
        against: the row it is to be compared with.
        options: of the command line; an empty value is a flag.
        config: in ``configs/``.
        first_half: a config that is trained for half of the pictures before; this one starts from it.
    """

    name: str
    says: str
    against: str
    options: dict[str, str] = field(default_factory=dict)
    config: str = "heads32"
    first_half: str | None = None


def views(count: int) -> dict[str, str]:
    return {"training.views-per-scene": str(count)}


ROWS = (
    Row("views_1", "V = 1", "views_2", views(1)),
    Row("views_2", "V = 2", ""),
    Row("views_4", "V = 4", "views_2", views(4)),
    Row("views_8", "V = 8", "views_2", views(8)),
    Row("no_averaging", "V = 4, a latent for every view", "views_4",
        {**views(4), "training.no-gradient-averaging": ""}),
    Row("views_together", "V = 4, minibatch-std fix off", "views_4", {**views(4), "training.no-views-apart": ""}),
    Row("no_cameras", "D without cameras", "views_2", {"discriminator.no-camera-conditioning": ""}),
    Row("white", "white backgrounds", "views_2", {"training.backgrounds": "white"}),
    Row("relativistic", "relativistic, R1 + R2", "views_2", {"training.loss.objective": "relativistic"}),
    Row("direct", "64 px from the start", "", config="heads64_grown", options={"training.start-from": "None"}),
    Row("grown", "64 px, grown halfway", "direct", config="heads64_grown", first_half="heads32"),
)  # fmt: skip


def train(folder: Path, config: str, kimg: float, arguments: argparse.Namespace, options: dict[str, str]) -> None:
    """Train, or go on, unless it is finished; one thread.

    Raises:
        RuntimeError: when the training failed; its output is in ``FOLDER.txt``.
    """
    done = (folder / "head.ply").is_file()  # the last thing a run writes
    if done:
        return
    every = {"kimg": kimg, "sample-kimg": kimg, "checkpoint-kimg": max(kimg / 4, 0.016), "keep-checkpoints": 1}
    every |= {"log-kimg": min(1.0, kimg / 4), "guard.on-collapse": "warn"}
    options = {**{f"training.{name}": str(value) for name, value in every.items()}, **options}
    flat = [text for name, value in options.items() for text in (f"--{name}", value) if text]
    # `--resume` with a config starts a run that is not there yet, and one that was cut off goes on.
    where = ["--data.path", str(arguments.data), "--out", str(folder), "--resume"]
    command = [sys.executable, str(ROOT / "train.py"), str(ROOT / "configs" / f"{config}.yaml"), *where, *flat]
    with folder.with_suffix(".txt").open("a") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if code:
        raise RuntimeError(f"{folder}: training ended with {code}; see {folder.with_suffix('.txt')}")


def run_row(row: Row, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one row with one seed, or read what was measured before."""
    folder = arguments.out / f"{row.name}-{seed}"
    measured = folder / MEASURED
    if measured.is_file():
        return json.loads(measured.read_text())
    kimg, options = arguments.kimg, {"training.seed": str(seed), **row.options}
    decay = {"training.optimizer.decay-kimg": f"{kimg / 3:g}"}
    if row.first_half:
        kimg /= 2
        half = arguments.out / f"{row.name}-{seed}-first"
        train(half, row.first_half, kimg, arguments, options)
        options = {**options, "training.start-from": str(half)}
    train(folder, row.config, kimg, arguments, {**decay, **options})
    figures = {**measure(folder), "images_per_s": speed(folder)}
    measured.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def speed(folder: Path) -> float:
    """Median images per second of a run's log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return statistics.median(line["images_per_second"] for line in lines if "images_per_second" in line)


@dataclass(frozen=True)
class Pictures:
    """Pictures of one source in all the ways in which they are compared.

    Attributes:
        white: on white.
        colors: on random colours, the same ones for every source.
        yaw: of their cameras, degrees.
        cover: mean alpha.
    """

    white: Tensor
    colors: Tensor
    yaw: Tensor
    cover: float


def random_colors() -> Tensor:
    return torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(7))


def real_pictures(dataset: HeadDataset, part: int) -> tuple[Pictures, Tensor]:
    """Real pictures that no other part holds, and their labels."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    batch = dataset.read(order[part * COUNT : (part + 1) * COUNT])
    yaw = yaw_pitch(Cameras.from_labels(batch.camera_labels))[0].rad2deg()
    cover = float(batch.premultiplied[:, 3].mean())
    count = len(batch.camera_labels)
    white, colors = batch.composite(torch.ones(count, 3)), batch.composite(random_colors()[:count])
    return Pictures(white=white, colors=colors, yaw=yaw, cover=cover), batch.camera_labels


@torch.no_grad()
def fake_pictures(generator: TrainedGenerator, labels: Tensor) -> Pictures:
    """One picture for each camera, at the training size."""
    z = torch.randn(len(labels), generator.z_dim, generator=torch.Generator().manual_seed(0x5EED_0001))
    found: dict[str, list[Tensor]] = {"images": [], "alphas": []}
    for part, chunk in zip(z.split(64), labels.split(64)):
        rendered = generator.renderer(
            generate_scenes(generator, part, chunk=64),
            Cameras.from_labels(chunk[:, None]),
            size=generator.resolution,
            backgrounds=torch.zeros(len(part), 1, 3),
        )
        found["images"].append(rendered.images[:, 0])
        found["alphas"].append(rendered.alphas[:, 0].movedim(-1, 1))
    images, alphas = torch.cat(found["images"]), torch.cat(found["alphas"])
    colors = random_colors()[: len(labels), :, None, None]
    yaw = yaw_pitch(Cameras.from_labels(labels))[0].rad2deg()
    white, colored = ((images + (1 - alphas) * behind).clamp(0, 1) for behind in (1.0, colors))
    return Pictures(white=white, colors=colored, yaw=yaw, cover=float(alphas.mean()))


def compare(real: Pictures, fake: Pictures) -> dict[str, float]:
    """All figures of one source against the real pictures."""
    features = {name: random_features(pictures.white) for name, pictures in (("real", real), ("fake", fake))}
    figures = {"frd": relative_frechet_distance(features["real"], features["fake"])}
    swd = sliced_wasserstein_distance(real.white, fake.white)
    figures |= {f"swd_{size}": value for size, value in swd.items()}
    for name, side in (("front", False), ("side", True)):
        chosen = [features[k][(p.yaw.abs() > SIDE_YAW) == side] for k, p in (("real", real), ("fake", fake))]
        figures[f"frd_{name}"] = relative_frechet_distance(*chosen)
    figures["frd_colors"] = relative_frechet_distance(random_features(real.colors), random_features(fake.colors))
    return {**figures, "cover": fake.cover}


def measure(folder: Path) -> dict[str, float]:
    """Figures of a run's newest checkpoint."""
    generator = load_generator(folder)
    dataset = open_dataset(replace(generator.config.data, x_flip=False))
    real, labels = real_pictures(dataset, 0)
    return {"resolution": generator.resolution, **compare(real, fake_pictures(generator, labels))}


def measure_floor(data: Path, resolution: int, folder: Path) -> dict[str, float]:
    """Other real pictures against the real ones, with the data settings of some run."""
    config = load_generator(folder).config
    dataset = open_dataset(replace(config.data, path=str(data), resolution=resolution, x_flip=False))
    return {"resolution": resolution, **compare(real_pictures(dataset, 0)[0], real_pictures(dataset, 1)[0])}


@torch.no_grad()
def picture_row(folder: Path) -> list[Tensor]:
    """Four heads from three sides on white, and two of them on black."""
    generator = load_generator(folder)
    scenes = generate_scenes(generator, latents_from_seeds(range(4), generator.z_dim))
    cameras = orbit(torch.tensor([-35.0, 0.0, 35.0]).deg2rad(), torch.zeros(3))
    white = render_views(generator.renderer, scenes, cameras, size=64).flatten(0, 1)
    black = render_views(generator.renderer, scenes, cameras, size=64, background=BLACK)[:2, 1]
    return list(torch.cat([white, black]).clamp(0, 1))


def print_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """On the console; and the same as lines of markdown."""
    names = {"frd": "FRD", "frd_front": "front", "frd_side": "side", "frd_colors": "colours", "swd_32": "SWD 32 px",
             "swd_16": "16 px", "cover": "cover", "images_per_s": "img/s"}  # fmt: skip
    table = Table("", "px", *names.values())
    lines = [f"| | px | {' | '.join(names.values())} |", "|---|---|" + "---|" * len(names)]
    for row in rows:
        cells = [row["says"], str(row["resolution"])]
        for name in names:
            values = [seed[name] for seed in row["seeds"] if name in seed]
            digits = 3 if name == "cover" else 1 if name == "images_per_s" else 2
            mean = f"{statistics.mean(values):.{digits}f}" if values else ""
            each = ", ".join(f"{value:.{digits}f}" for value in values)
            cells.append(f"{mean} ({each})" if len(values) > 1 and name == "frd" else mean)
        table.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
    Console(width=160).print(table)
    return lines


def report(found: dict[str, dict[int, dict[str, Any]]], arguments: argparse.Namespace) -> None:
    """Write results/ablations.json, .md and .png from what has been measured so far."""
    rows: list[dict[str, Any]] = []
    pictures: list[Tensor] = []
    labels: list[str] = []
    for row in ROWS:
        seeds = found.get(row.name, {})
        if not seeds:
            continue
        first = arguments.out / f"{row.name}-{min(seeds)}"
        resolution = next(iter(seeds.values()))["resolution"]
        if all(other["resolution"] != resolution for other in rows):
            floor = measure_floor(arguments.data, resolution, first)
            rows.append({"name": f"floor_{resolution}", "says": "other real pictures", "against": "",
                         "resolution": resolution, "seeds": [floor]})  # fmt: skip
        rows.append({"name": row.name, "says": row.says, "against": row.against, "options": row.options,
                     "resolution": resolution, "seeds": list(seeds.values())})  # fmt: skip
        pictures += picture_row(first)
        labels.append(row.says)
    lines = print_table(rows)
    RESULTS.mkdir(exist_ok=True)
    head = {"kimg": arguments.kimg, "data": arguments.data.name, "torch": torch.__version__}
    (RESULTS / "ablations.json").write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")
    (RESULTS / "ablations.md").write_text("\n".join(lines) + "\n")
    save_grid(RESULTS / "ablations.png", torch.stack(pictures), columns=len(pictures) // len(labels))
    print(f"rows of {RESULTS / 'ablations.png'}: {'; '.join(labels)}")


def main() -> int:
    """Run what is not there yet, then print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a set in EG3D's format")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="run folders; one --kimg per folder")
    parser.add_argument("--kimg", type=float, default=12.0, help="real pictures of every run, thousands")
    parser.add_argument("--only", nargs="+", default=[row.name for row in ROWS], choices=[row.name for row in ROWS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {"kimg": arguments.kimg, "data": arguments.data.name}
    note = arguments.out / "ablations.json"
    if note.is_file() and json.loads(note.read_text()) != settings:
        parser.error(f"{arguments.out} holds runs with {note.read_text().strip()}; choose another --out")
    note.write_text(json.dumps(settings) + "\n")
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for seed in arguments.seeds:
        for row in ROWS:
            if row.name in arguments.only:
                start = time.perf_counter()
                figures = found.setdefault(row.name, {})[seed] = run_row(row, seed, arguments)
                minutes = (time.perf_counter() - start) / 60
                print(f"{row.name}, seed {seed}: FRD {figures['frd']:.2f}, {minutes:.1f} minutes", flush=True)
        report(found, arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
