"""``cgsgan render [RUN_OR_CHECKPOINT] [--seeds 0-7] [--psi 0.7] [--turntable webp] [--ply] [--grid]``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

MOST_SEEDS = 4096


@dataclass(frozen=True, kw_only=True)
class RenderArguments:
    """Show what a generator makes. Without --turntable, --ply or --grid it writes a grid.

    Attributes:
        checkpoint: a run folder, a checkpoint folder or a generator.safetensors; default the generator that comes with
            the package, and a turntable beside the grid.
        seeds: identities, like 0-7 or 3,5,9-12; default the heads that `cgsgan invert` found, or 0-7.
        psi: truncation; 1 is full variety, 0 the average head.
        size: pixels of each picture; default the training size for grids, at least 256 for turntables.
        grid: write a contact sheet of seeds and views.
        turntable: write one video with all seeds side by side.
        path: swing (the range of the training poses) or orbit (all around).
        frames: frames of the turntable.
        ply: write one .ply per seed.
        axes: axes of the .ply: opencv (y down, what most splat viewers expect) or opengl (y up).
        bake_dilation: add the renderer's pixel dilation to the .ply scales, so that a viewer shows the same picture.
        out: folder to write to; default "renders" in the checkpoint's run, or here.
        best: of a run folder, the checkpoint with the best score (--training.evaluate-kimg) instead of the newest.
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    seeds: str | None = None
    psi: float = 1.0
    size: int | None = None
    grid: bool = False
    turntable: Literal["webp", "gif", "mp4", "webm"] | None = None
    path: Literal["swing", "orbit"] = "swing"
    frames: int = 96
    ply: bool = False
    axes: Literal["opencv", "opengl"] = "opencv"
    bake_dilation: bool = True
    out: Path | None = None
    best: bool = False


def run(argv: list[str]) -> int:
    """Parse, render, say what was written."""
    arguments = tyro.cli(RenderArguments, args=argv, prog="render.py")
    seeds = None if arguments.seeds is None else parse_seeds(arguments.seeds)
    if not math.isfinite(arguments.psi):
        raise ValueError(f"--psi: expected a finite number, usually 0 to 1, got {arguments.psi}")
    if arguments.out is not None and arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out}: is a file; expected a folder to write to")
    if arguments.size is not None and not 8 <= arguments.size <= 8192:
        raise ValueError(f"--size: expected 8 to 8192 pixels, got {arguments.size}")

    from cgsgan.generators import load_generator

    generator = load_generator(arguments.checkpoint, best=arguments.best)
    if arguments.ply and generator.config.generator.kind != "gaussians":
        raise ValueError("--ply: tri-planes hold no Gaussians to write; use --grid or --turntable, or `cgsgan mesh`")
    if arguments.checkpoint is None and not (arguments.grid or arguments.turntable or arguments.ply):
        arguments = replace(arguments, grid=True, turntable="webp")
    out = arguments.out or _default_out(arguments.checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    for path in _write(arguments, generator, seeds, out):
        print(f"wrote {path}")
    if arguments.checkpoint is None:
        for name in ("data", "licence"):
            if name in generator.provenance:
                print(f"{name}: {generator.provenance[name]}")
        print("made by the generator that comes with cgsgan; for yours: python render.py RUN")
    return 0


def parse_seeds(text: str) -> list[int]:
    """``"0-3,7"`` to ``[0, 1, 2, 3, 7]``.

    Raises:
        ValueError: for anything else.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            span = range(int(first), int(last if dash else first) + 1)
            if not span or len(seeds) + len(span) > MOST_SEEDS:
                raise ValueError
            seeds.extend(span)
    except ValueError:
        seeds = []
    if not seeds:
        raise ValueError(f"--seeds: expected something like 0-7 or 3,5,9-12 (at most {MOST_SEEDS}), got {text!r}")
    return seeds


def _default_out(checkpoint: Path | None) -> Path:
    if checkpoint is None:
        return Path("renders")
    folder = checkpoint.parent if checkpoint.is_file() else checkpoint
    run_folder = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    return run_folder / "renders"


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
