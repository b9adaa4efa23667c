"""What inversion brings: persons whose other views are known, found again from one photo.

    python benchmarks/inversion.py --data heads128_eval.zip [--generator runs/heads64] [--persons 16] [--threads 2]

Every person of the set is found from view 0 with its camera given, from view 0 with its camera found as well, and from
2 and 4 views (given); then pictured from all 8 sides and compared, on white, with the truth: PSNR of the whole picture,
and of the pixels that the head covers by more than half. Beside the depths of the search stand the average head and the
random head that looks most like the photo. Persons that are finished are kept in --work, so that a run that was cut off
goes on, and several may share the settings; --finished sums up what is there. Seconds are those of the clock and, in
`cpu_seconds`, those that the cores worked. --ablation measures variants of the method on other persons (from 24 on).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.export.atomic import atomic_path
from cgsgan.export.images import make_grid, save_image
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.latents.inversion import InversionConfig, Inverter
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.targets import Target

RESULTS = Path(__file__).parent / "results"
VIEWS = 8
HELD_OUT = (1, 2, 6, 7)
"""Views that no setting is given, so that all settings can be compared on them."""
RANDOM_HEADS = 512
PICTURED = (0, 2, 4, 6, 7)
"""Views in the picture of the results."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the search is told.

    Attributes:
        given: numbers of the views.
        cameras: whether their cameras are given, too.
        config: how it searches.
    """

    given: tuple[int, ...] = (0,)
    cameras: bool = True
    config: InversionConfig = field(default_factory=InversionConfig)


SETTINGS = {
    "camera given": Setting(),
    "camera found": Setting(cameras=False),
    "2 views": Setting(given=(0, 4)),
    "4 views": Setting(given=(0, 3, 4, 5)),
}
PLAIN = InversionConfig()
ABLATION = {
    "as it is": Setting(),
    "128 candidates": Setting(config=replace(PLAIN, candidates=128)),
    "prior x 10": Setting(config=replace(PLAIN, prior_weight=10 * PLAIN.prior_weight)),
    "spread x 10": Setting(config=replace(PLAIN, spread_weight=10 * PLAIN.spread_weight)),
    "keep 0": Setting(config=replace(PLAIN, keep_weight=0.0)),
    "keep x 5": Setting(config=replace(PLAIN, keep_weight=5 * PLAIN.keep_weight)),
    "half the steps": Setting(
        config=replace(
            PLAIN,
            w_steps=PLAIN.w_steps // 2,
            ws_steps=PLAIN.ws_steps // 2,
            tuning_steps=PLAIN.tuning_steps // 2,
        )
    ),
}


@dataclass(frozen=True)
class Person:
    """The truth.

    Attributes:
        pictures: all views, with coverage.
        cameras: ``[1, view]``.
    """

    pictures: Target
    cameras: Cameras

    def views(self, chosen: tuple[int, ...]) -> tuple[Target, Cameras]:
        """Some of them."""
        assert self.pictures.alphas is not None
        rows = list(chosen)
        pictures = Target(colors=self.pictures.colors[rows], alphas=self.pictures.alphas[rows])
        return pictures, self.cameras.map(lambda t: t[:, rows])

    def compare(self, images: Tensor) -> dict[str, list[float]]:
        """PSNR in dB of every view, whole and where the head is."""
        assert self.pictures.alphas is not None
        errors = (images - self.pictures.on(torch.ones(VIEWS, 3))).square().mean(dim=1)
        inside = (self.pictures.alphas[:, 0] > 0.5).float()
        whole = errors.mean(dim=(1, 2))
        head = (errors * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2))
        return {name: (-10 * torch.log10(mean)).tolist() for name, mean in (("psnr", whole), ("head", head))}


def read_person(data: str, resolution: int, index: int) -> Person:
    dataset = open_dataset(DataConfig(path=data, resolution=resolution, x_flip=False))
    if VIEWS * (index + 1) > len(dataset):
        raise ValueError(f"{data}: expected {VIEWS} views of person {index}, it has {len(dataset)} pictures")
    batch = dataset.read(range(VIEWS * index, VIEWS * (index + 1)))
    pictures = Target(colors=batch.premultiplied[:, :3], alphas=batch.premultiplied[:, 3:])
    return Person(pictures, Cameras.from_labels(batch.camera_labels[None]))


@torch.no_grad()
def picture(generator: TrainedGenerator, ws: Tensor, cameras: Cameras, network: nn.Module | None = None) -> Tensor:
    """A head from the cameras, on white, within [0, 1]."""
    source = SceneSource(network or generator.network, generator.renderer)
    white = torch.ones(cameras.viewmats.shape[1], 3)
    return source.render(ws, cameras, white, size=generator.resolution)[0].clamp(0, 1)


@torch.no_grad()
def baselines(generator: TrainedGenerator, person: Person) -> dict[str, Tensor]:
    """The average head, and the random one that is nearest to view 0, from all sides."""
    z = torch.randn(RANDOM_HEADS, generator.z_dim, generator=torch.Generator().manual_seed(7))
    ws = generator.map_latents(z)
    photo, camera = person.views((0,))
    wanted = photo.on(torch.ones(1, 3))[0]
    errors = [(picture(generator, one[None], camera)[0] - wanted).square().mean() for one in ws]
    nearest = ws[int(torch.stack(errors).argmin())][None]
    mean = ws.mean(dim=0, keepdim=True)
    return {
        "average head": picture(generator, mean, person.cameras),
        f"nearest of {RANDOM_HEADS}": picture(generator, nearest, person.cameras),
    }


def find(generator: TrainedGenerator, person: Person, setting: Setting) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Figures and pictures (all sides) of each depth."""
    photos, cameras = person.views(setting.given)
    before, busy = time.perf_counter(), time.process_time()
    inverter = Inverter(generator.network, generator.renderer, setting.config, mapping=generator.map_latents)
    rows: dict[str, Any] = {}
    images: dict[str, Tensor] = {}
    for found in inverter.stages(photos, cameras if setting.cameras else None):
        times = {"seconds": time.perf_counter() - before, "cpu_seconds": time.process_time() - busy}
        images[found.depth] = picture(generator, found.ws, person.cameras, found.network)
        off = camera_errors(found.cameras, cameras)
        rows[found.depth] = {**times, **off, **person.compare(images[found.depth])}
    return rows, images


def camera_errors(found: Cameras, true: Cameras) -> dict[str, float]:
    """Degrees between where the cameras stand, seen from the origin, and between their whole rotations."""
    places = [torch.nn.functional.normalize(c.cam_to_world[..., :3, 3].double(), dim=-1) for c in (found, true)]
    direction = (places[0] * places[1]).sum(dim=-1).clamp(-1, 1).acos()
    turn = found.viewmats[..., :3, :3].double() @ true.viewmats[..., :3, :3].double().mT
    trace = turn.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    rotation = ((trace - 1) / 2).clamp(-1, 1).acos()
    return {"camera": float(direction.rad2deg().mean()), "rotation": float(rotation.rad2deg().mean())}


def measure_person(
    generator: TrainedGenerator, arguments: argparse.Namespace, settings: dict[str, Setting], index: int, folder: Path
) -> dict[str, Any]:
    """All settings for one person, each kept in a file; what is there already is not measured again."""
    person = read_person(arguments.data, generator.resolution, index)
    measured: dict[str, Any] = {}
    for name in ("baselines", *settings):
        file = kept_file(folder, index, name)
        if not file.exists():
            if arguments.finished:
                continue
            if name == "baselines":
                figures: dict[str, Any] = {
                    key: person.compare(images) for key, images in baselines(generator, person).items()
                }
            else:
                figures, images = find(generator, person, settings[name])
                tuned = figures["tuned"]
                print(f"person {index}, {name}: {tuned['psnr'][0]:.1f} dB, {tuned['seconds']:.0f} s", flush=True)
                save_image(file.with_suffix(".png"), sheet(person, images))
            file.write_text(json.dumps(figures))
        measured[name] = json.loads(file.read_text())
    return measured


def kept_file(folder: Path, index: int, name: str) -> Path:
    return folder / f"{index:03d}_{name.replace(' ', '_')}.json"


def sheet(person: Person, images: dict[str, Tensor]) -> Tensor:
    """The truth above each depth, from all sides."""
    return make_grid(torch.cat([person.pictures.on(torch.ones(VIEWS, 3)), *images.values()]), columns=VIEWS)


def summarise(measured: list[dict[str, Any]], settings: dict[str, Setting]) -> list[dict[str, Any]]:
    """One row for each baseline, and each depth of each setting: means over persons."""
    rows = []
    for name in measured[0]["baselines"]:
        rows.append({"what": name, "depth": "", **_means([p["baselines"][name] for p in measured])})
    for name, setting in settings.items():
        for depth in ("w", "ws", "tuned"):
            figures = [p[name][depth] for p in measured if name in p]
            if not figures:
                continue
            row = {"what": name, "depth": depth, **_means(figures)}
            if not setting.cameras:
                degrees = torch.tensor([f["camera"] for f in figures])
                row.update(camera=float(degrees.mean()), camera_median=float(degrees.median()))
                row["camera_worst"] = float(degrees.max())
            for key in ("seconds", "cpu_seconds"):
                times = [f[key] for f in figures if key in f]
                if times:
                    row[key] = float(torch.tensor(times).median())
            rows.append(row)
    return rows


def _means(figures: list[dict[str, Any]]) -> dict[str, float]:
    row: dict[str, float] = {"persons": len(figures)}
    for kind in ("psnr", "head"):
        values = torch.tensor([f[kind] for f in figures])
        row[f"{kind}_0"] = float(values[:, 0].mean())
        row[f"{kind}_others"] = float(values[:, 1:].mean())
        row[f"{kind}_held_out"] = float(values[:, list(HELD_OUT)].mean())
    return row


def show(rows: list[dict[str, Any]], title: str) -> None:
    columns = {
        "psnr_0": "view 0", "psnr_others": "7 others", "psnr_held_out": "held out", "head_0": "head, view 0",
        "head_others": "head, others", "camera": "camera off, degrees", "cpu_seconds": "CPU seconds",
    }  # fmt: skip
    table = Table("what", "depth", "persons", *columns.values(), title=title)
    for row in rows:
        figures = (f"{row[key]:.1f}" if key in row else "" for key in columns)
        table.add_row(row["what"], row["depth"], str(row["persons"]), *figures)
    Console(width=140).print(table)


def save_picture(folder: Path, path: Path, persons: list[int], name: str) -> None:
    """For each person the truth, w, ws and tuned as rows, a few views as columns; two persons side by side."""
    blocks = []
    for index in persons:
        with Image.open(kept_file(folder, index, name).with_suffix(".png")) as file:
            sheet = file.convert("RGB")
        cell = (sheet.width - 2) // VIEWS
        block = Image.new("RGB", (cell * len(PICTURED) + 8, sheet.height), "white")
        for column, view in enumerate(PICTURED):
            block.paste(sheet.crop((view * cell, 0, (view + 1) * cell, sheet.height)), (column * cell, 0))
        blocks.append(block)
    width, height = blocks[0].size
    joined = Image.new("RGB", (2 * width, -(-len(blocks) // 2) * (height + 8)), "white")
    for number, block in enumerate(blocks):
        joined.paste(block, (number % 2 * width, number // 2 * (height + 8)))
    joined = joined.resize((2 * joined.width, 2 * joined.height), Image.Resampling.NEAREST)
    with atomic_path(path) as temporary:
        joined.save(temporary, format="WEBP", quality=90)


def main() -> int:
    """Print the table; write results/inversion.json (or another --name)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--generator", type=Path, default=None, help="default the one that comes with the package")
    parser.add_argument("--persons", type=int, default=16)
    parser.add_argument("--first", type=int, default=None, help="default 0, and 24 for --ablation")
    parser.add_argument("--settings", nargs="*", default=None)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--finished", action="store_true", help="measure nothing; sum up what is in --work")
    parser.add_argument("--pictured", type=int, nargs="*", default=[], help="persons in results/NAME.webp")
    parser.add_argument("--name", default=None, help="of the results; default inversion, or inversion_ablation")
    parser.add_argument("--work", type=Path, default=Path("runs/inversion"), help="where finished persons are kept")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    every = ABLATION if arguments.ablation else SETTINGS
    settings = {name: every[name] for name in arguments.settings or every}
    name = arguments.name or ("inversion_ablation" if arguments.ablation else "inversion")
    first = (24 if arguments.ablation else 0) if arguments.first is None else arguments.first
    folder = arguments.work / name
    folder.mkdir(parents=True, exist_ok=True)
    generator = load_generator(arguments.generator)
    measured = [
        measure_person(generator, arguments, settings, index, folder)
        for index in range(first, first + arguments.persons)
    ]
    rows = summarise(measured, settings)
    show(rows, f"{arguments.persons} persons from {first}, {arguments.generator or 'the shipped generator'}")
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.pictured:
        save_picture(folder, RESULTS / f"{name}.webp", arguments.pictured, next(iter(settings)))
    print(f"wrote {RESULTS / f'{name}.json'}; pictures in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
