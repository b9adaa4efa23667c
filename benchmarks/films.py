"""How long films take on a CPU: 240 frames of 512 px of heads with 240,000 Gaussians, and of the shipped generator.

    python benchmarks/films.py [--frames 240] [--size 512] [--formats mp4 webp]

Three heads: one of the untrained generator of ``configs/ffhq512.yaml`` (its Gaussians are nearly points, so it draws
fast); one of the generator that comes with cgsgan, each Gaussian split into 56 that are scattered within it and smaller
by the root of 56, so that as many lie over each pixel as before, the closest thing at hand to a trained 240,000; and
that one as it is. A walk generates a scene for each frame. Seconds by the clock and of the processor, of all frames
with their encoding. Writes ``benchmarks/results/films.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from cgsgan import load_generator
from cgsgan.cameras import turntable
from cgsgan.config import load_config
from cgsgan.film import Film, FrameOptions, save_film, turn_heads, walk_heads
from cgsgan.gallery import generate_scenes, latents_from_seeds
from cgsgan.generators import TrainedGenerator, build_generator
from cgsgan.types import Gaussians
from rasterizer.reference_projection import rotation_matrices

ROOT = Path(__file__).parents[1]
PARTS = 56


def split_head(head: Gaussians) -> Gaussians:
    """A scene ``[1, N]`` with ``PARTS`` smaller Gaussians for each one."""
    parts = head.map(lambda tensor: tensor.repeat_interleave(PARTS, dim=1))
    noise = torch.randn(parts.means.shape, generator=torch.Generator().manual_seed(0)) * parts.scales
    turned = (rotation_matrices(parts.quats[0]) @ noise[0, :, :, None])[None, :, :, 0]
    return replace(parts, means=parts.means + turned, scales=parts.scales / PARTS**0.5)


def make_films(size: int, frames: int) -> dict[str, Film]:
    """What is measured, by name."""
    config = load_config(ROOT / "configs/ffhq512.yaml")
    torch.manual_seed(0)
    large = TrainedGenerator(build_generator(config.generator), config).eval().requires_grad_(False)
    small = load_generator()
    options, cameras = FrameOptions(size=size), turntable(frames)

    def head(generator: TrainedGenerator) -> Gaussians:
        scene = generate_scenes(generator, latents_from_seeds([3], generator.z_dim))
        assert isinstance(scene, Gaussians)
        return scene

    def walk(generator: TrainedGenerator) -> Film:
        stations = generator.map_latents(latents_from_seeds(range(8), generator.z_dim))[:, None]
        return walk_heads(generator, generator.renderer, stations, cameras, options)

    untrained, shipped = head(large), head(small)
    return {
        f"turn, {untrained.count:,} Gaussians (untrained)": turn_heads(large.renderer, untrained, cameras, options),
        f"turn, {PARTS * shipped.count:,} Gaussians (split head)": turn_heads(
            large.renderer, split_head(shipped), cameras, options
        ),
        f"walk, {untrained.count:,} Gaussians (untrained)": walk(large),
        f"turn, {shipped.count:,} Gaussians (shipped)": turn_heads(small.renderer, shipped, cameras, options),
        f"walk, {shipped.count:,} Gaussians (shipped)": walk(small),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--formats", nargs="+", default=["mp4", "webp"])
    arguments = parser.parse_args()
    rows = []
    table = Table("film", "format", "s", "CPU s", "CPU ms a frame", "MB", title=f"{arguments.frames} frames")
    with tempfile.TemporaryDirectory() as folder:
        for name, film in make_films(arguments.size, arguments.frames).items():
            film.frame(0)
            for format in arguments.formats:
                path = Path(folder) / f"film.{format}"
                start = time.perf_counter(), time.process_time()
                save_film(path, film)
                clock, processor = time.perf_counter() - start[0], time.process_time() - start[1]
                megabytes = path.stat().st_size / 1e6
                rows.append({"film": name, "format": format, "seconds": clock, "processor": processor, "MB": megabytes})
                each = f"{1000 * processor / len(film):.0f}"
                table.add_row(name, format, f"{clock:.1f}", f"{processor:.1f}", each, f"{megabytes:.2f}")
    Console(width=120).print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"largest memory of the process: {peak:.0f} MB")
    result = {
        "machine": f"{torch.get_num_threads()} thread(s), {os.cpu_count()} cores",
        "frames": arguments.frames,
        "size": arguments.size,
        "peak_mb": round(peak),
        "rows": rows,
    }
    (ROOT / "benchmarks/results/films.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
