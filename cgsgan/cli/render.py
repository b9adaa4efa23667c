"""``cgsgan render [RUN_OR_CHECKPOINT] [--seeds 0-7] [--psi 0.7] [--turntable webp] [--ply] [--grid]``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import tyro

from cgsgan.cli.render_arguments import RenderArguments, parse_seeds


def run(argv: list[str]) -> int:
    """Parse, render, say what was written."""
    arguments = tyro.cli(RenderArguments, args=argv, prog="render.py")
    seeds = None if arguments.seeds is None else parse_seeds(arguments.seeds)
    arguments.check()

    from cgsgan.generators import load_generator

    generator = load_generator(arguments.checkpoint, best=arguments.best)
    if arguments.ply and generator.config.generator.kind != "gaussians":
        raise ValueError("--ply: tri-planes hold no Gaussians to write; use --grid or --turntable, or `cgsgan mesh`")
    if arguments.checkpoint is None and not (arguments.grid or arguments.turntable or arguments.ply):
        arguments = replace(arguments, grid=True, turntable="webp")
    out = arguments.output_folder()
    out.mkdir(parents=True, exist_ok=True)
    for path in _write(arguments, generator, seeds, out):
        print(f"wrote {path}")
    if arguments.checkpoint is None:
        for name in ("data", "licence"):
            if name in generator.provenance:
                print(f"{name}: {generator.provenance[name]}")
        print("made by the generator that comes with cgsgan; for yours: python render.py RUN")
    return 0


def _write(arguments: RenderArguments, generator, seeds: list[int] | None, out: Path) -> list[Path]:
    from cgsgan.gallery import (
        choose_heads,
        contact_sheet,
        generate_scenes,
        save_contact_sheet,
        save_scene,
        save_turntable,
    )
    from cgsgan.types import Gaussians

    names, z = choose_heads(generator, seeds, otherwise=range(8))
    written: list[Path] = []
    if arguments.grid or not (arguments.turntable or arguments.ply):
        written.append(out / "grid.png")
        size = arguments.size or generator.resolution
        sheet = contact_sheet(generator, generator.renderer, z, size=size, truncation_psi=arguments.psi)
        save_contact_sheet(written[-1], sheet)
    if not (arguments.turntable or arguments.ply):
        return written
    scenes = generate_scenes(generator, z, truncation_psi=arguments.psi)
    if arguments.turntable:
        written.append(out / f"turntable.{arguments.turntable}")
        size = arguments.size or max(generator.resolution, 256)
        save_turntable(written[-1], generator.renderer, scenes, size=size, frames=arguments.frames, kind=arguments.path)
    if arguments.ply:
        assert isinstance(scenes, Gaussians)
        dilation = generator.dilation if arguments.bake_dilation else 0.0
        for index, name in enumerate(names):
            written.append(out / f"{name}.ply")
            save_scene(written[-1], scenes, index, dilation=dilation, axes=arguments.axes)
    return written
