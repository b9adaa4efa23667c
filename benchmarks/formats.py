"""Size, writing and reading time, and worst rounding of every splat format, for 240,000 and 1,000,000 Gaussians.

    python benchmarks/formats.py [--counts 240000 1000000] [--repeats 3] [--folder DIR]

The Gaussians are copies of heads of the generator that comes with cgsgan, scattered a little, so that they compress
as heads do and not as noise. Times are the best of the repeats: by the clock, which holds the disk and everything else
that the machine does, and of the processor, which is what the format costs. Files are synced to the disk before they
have their name. Writes ``benchmarks/results/formats.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from cgsgan import load_generator
from cgsgan.export import ExportOptions, read_splats, write_splats
from cgsgan.export.formats import FORMATS
from cgsgan.gallery import generate_scenes, latents_from_seeds
from cgsgan.types import Gaussians

RESULTS = Path(__file__).parent / "results"
SCATTER = 0.002
"""World units: copies of a splat are spread like neighbours in a finer head."""


def make_scene(count: int) -> Gaussians:
    """Heads of as many seeds as it takes, all in one place."""
    generator = load_generator()

    def heads_of(seeds: list[int]) -> Gaussians:
        scenes = generate_scenes(generator, latents_from_seeds(seeds, generator.z_dim))
        assert isinstance(scenes, Gaussians)
        return scenes

    one = heads_of([0]).count
    seeds = list(range(min(64, -(-count // one))))
    heads = heads_of(seeds).map(lambda tensor: tensor.flatten(0, 1))
    rows = torch.arange(count) % heads.count
    scene = heads.map(lambda tensor: tensor[rows])
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(scene.means.shape, generator=draws)
    scales = torch.hypot(scene.scales, torch.tensor(generator.dilation)) * (0.1 * noise.flip(-1)).exp()
    colors = (scene.colors + 0.01 * noise.roll(1, -1)).clamp(0, 1)
    quats = torch.nn.functional.normalize(scene.quats, dim=-1)
    return replace(scene, means=scene.means + SCATTER * noise, scales=scales, colors=colors, quats=quats)


def best_times(action: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    clock, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        action()
        clock.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return min(clock), min(processor)


def measure(folder: Path, scene: Gaussians, repeats: int) -> list[dict[str, object]]:
    rows = []
    variants = [(suffix, 3, FORMATS[suffix].name) for suffix in FORMATS]
    variants += [(".spz", version, f"Niantic SPZ version {version}") for version in (2, 4)]
    for suffix, version, name in variants:
        path = folder / f"scene{suffix}"
        options = ExportOptions(prune=0.0, spz_version=version)
        write = best_times(lambda: write_splats(path, scene, options), repeats)  # noqa: B023 (called at once)
        read = best_times(lambda: read_splats(path), repeats)  # noqa: B023
        size = path.stat().st_size
        rows.append(
            {
                "format": f"{name} ({suffix})",
                "splats": scene.count,
                "bytes": size,
                "bytes_per_splat": round(size / scene.count, 2),
                "write_seconds": round(write[0], 3),
                "write_processor_seconds": round(write[1], 3),
                "read_seconds": round(read[0], 3),
                "read_processor_seconds": round(read[1], 3),
            }
        )
        path.unlink()
    return rows


def show(rows: list[dict[str, object]]) -> None:
    table = Table("format", "splats", "MB", "bytes each", "write s (CPU)", "read s (CPU)")
    for row in rows:
        table.add_row(
            str(row["format"]),
            f"{row['splats']:,}",
            f"{int(str(row['bytes'])) / 1e6:.1f}",
            f"{row['bytes_per_splat']}",
            f"{row['write_seconds']} ({row['write_processor_seconds']})",
            f"{row['read_seconds']} ({row['read_processor_seconds']})",
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--counts", type=int, nargs="+", default=[240_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where to write (default: a temporary folder)")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for count in arguments.counts:
            rows += measure(Path(folder), make_scene(count), arguments.repeats)
    show(rows)
    threads = f"{torch.get_num_threads()} thread(s), {os.cpu_count()} cores"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "formats.json").write_text(json.dumps({"machine": threads, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
