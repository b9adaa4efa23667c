"""``cgsgan render [RUN_OR_CHECKPOINT] [--seeds 0-7] [--turntable webp] [--walk] [--ply] [--html FILE] [--grid]``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from cgsgan.cli.render_arguments import RenderArguments, parse_seeds

TURN_FRAMES = 96
WALK_FRAMES = 30
"""From each head of a walk to the next."""

if TYPE_CHECKING:
    from torch import Tensor

    from cgsgan.cameras import Cameras
    from cgsgan.film import Film, FrameOptions
    from cgsgan.generators import TrainedGenerator
    from cgsgan.types import Scenes


def run(argv: list[str]) -> int:
    """Parse, render, say what was written."""
    arguments = tyro.cli(RenderArguments, args=argv, prog="render.py")
    seeds = None if arguments.seeds is None else parse_seeds(arguments.seeds)
    arguments.check()

    from cgsgan.gallery import choose_heads, generate_scenes
    from cgsgan.generators import load_generator
    from cgsgan.training.checkpoint import means_shipped

    if means_shipped(arguments.checkpoint):
        arguments = replace(arguments, checkpoint=None)
    generator = load_generator(arguments.checkpoint, best=arguments.best)
    arguments = _resolve(arguments)
    names, z = choose_heads(generator, seeds, otherwise=range(8))
    _check_possible(arguments, generator, len(names))
    out = arguments.output_folder()
    if arguments.grid or arguments.turntable or arguments.ply:
        out.mkdir(parents=True, exist_ok=True)
    if arguments.grid:
        _write_grid(arguments, generator, z, out / "grid.png")
    if arguments.turntable and arguments.walk:
        _write_film(arguments, _walk(arguments, generator, z), out)
    if arguments.ply or arguments.html or (arguments.turntable and not arguments.walk):
        scenes = generate_scenes(generator, z, truncation_psi=arguments.psi)
        if arguments.turntable and not arguments.walk:
            _write_film(arguments, _turn(arguments, generator, scenes), out)
        if arguments.ply:
            _write_splats(arguments, generator, names, scenes, out)
        if arguments.html:
            _write_page(arguments, generator, names, scenes, arguments.html)
    if arguments.psi == 1 and generator.found is None:
        print("this is full variety; --psi 0.7 draws heads nearer to the average, which are cleaner")
    if arguments.checkpoint is None:
        for name in ("data", "licence"):
            if name in generator.provenance:
                print(f"{name}: {generator.provenance[name]}")
        print("made by the generator that comes with cgsgan; for yours: python render.py RUN")
    return 0


def _resolve(arguments: RenderArguments) -> RenderArguments:
    """The same with every output named that will be written."""
    film = arguments.film_format()
    if arguments.checkpoint is None and not (arguments.grid or arguments.turntable or arguments.ply or arguments.html):
        return replace(arguments, grid=arguments.ground() is not None, turntable=film or "webp")
    return replace(arguments, grid=arguments.grid or not (film or arguments.ply or arguments.html), turntable=film)


def _check_possible(arguments: RenderArguments, generator: TrainedGenerator, heads: int) -> None:
    """Say what this generator, or so many heads, cannot give, before anything is made.

    Raises:
        ValueError: naming the option.
    """
    from cgsgan.export.html import MOST_HEADS

    if (arguments.ply or arguments.html) and generator.config.generator.kind != "gaussians":
        option = "--ply" if arguments.ply else "--html"
        raise ValueError(
            f"{option}: scenes of this kind hold no Gaussians to write; use --grid or --turntable, or `cgsgan mesh`"
        )
    if arguments.html and heads > MOST_HEADS:
        raise ValueError(f"--html: a page holds up to {MOST_HEADS} heads, got {heads}; name fewer with --seeds")
    if arguments.walk and heads < 2:
        raise ValueError("--walk: expected at least 2 heads to walk between, got 1; name more with --seeds")
    if arguments.background != "white" and generator.draws_background:
        raise ValueError(
            f"--background {arguments.background}: the super-resolution of this generator draws a background of its "
            "own; leave the option out"
        )
    if arguments.grid and arguments.ground() is None:
        raise ValueError("--background transparent: the grid has none; take --turntable webp or png alone")


def _write_grid(arguments: RenderArguments, generator: TrainedGenerator, z: Tensor, path: Path) -> None:
    from cgsgan.gallery import contact_sheet, save_contact_sheet

    background = arguments.ground()
    assert background is not None
    size = arguments.size or generator.resolution
    sheet = contact_sheet(
        generator, generator.renderer, z, size=size, truncation_psi=arguments.psi, background=background
    )
    save_contact_sheet(path, sheet)
    print(f"wrote {path}")


def _write_film(arguments: RenderArguments, film: Film, out: Path) -> None:
    from cgsgan.data.progress import progress_bar
    from cgsgan.film import save_film

    path = out / arguments.film_name()
    with progress_bar() as progress:
        frames = save_film(path, film, fps=arguments.fps, progress=progress)
    print(f"wrote {path}: {frames} frames, {frames / arguments.fps:.1f} s")


def _turn(arguments: RenderArguments, generator: TrainedGenerator, scenes: Scenes) -> Film:
    from cgsgan.film import turn_heads

    cameras = _cameras(arguments, TURN_FRAMES)
    return turn_heads(generator.renderer, scenes, cameras, _frame_options(arguments, generator))


def _walk(arguments: RenderArguments, generator: TrainedGenerator, z: Tensor) -> Film:
    from cgsgan.film import walk_heads

    cameras = _cameras(arguments, WALK_FRAMES * len(z))
    ws = z if z.ndim == 3 else generator.map_latents(z, truncation_psi=arguments.psi)
    return walk_heads(generator, generator.renderer, ws[:, None], cameras, _frame_options(arguments, generator))


def _cameras(arguments: RenderArguments, frames: int) -> Cameras:
    from cgsgan.cameras import FOCAL_NORMALIZED, focal_of_view, turntable

    return turntable(
        arguments.frames or frames,
        kind=arguments.path,
        focal=FOCAL_NORMALIZED if arguments.fov is None else focal_of_view(arguments.fov),
        yaw=None if arguments.yaw is None else math.radians(arguments.yaw),
        pitch=None if arguments.pitch is None else math.radians(arguments.pitch),
    )


def _frame_options(arguments: RenderArguments, generator: TrainedGenerator) -> FrameOptions:
    from cgsgan.film import FrameOptions

    return FrameOptions(
        size=arguments.size or max(generator.resolution, 256),
        show=arguments.show,
        background=arguments.ground(),
        normal_axes=arguments.normals,
        columns=arguments.columns,
    )


def _write_splats(
    arguments: RenderArguments, generator: TrainedGenerator, names: list[str], scenes: Scenes, out: Path
) -> None:
    from cgsgan.export import ExportOptions
    from cgsgan.gallery import save_scene
    from cgsgan.types import Gaussians

    assert isinstance(scenes, Gaussians)
    dilation = generator.dilation if arguments.bake_dilation else 0.0
    options = ExportOptions(axes=arguments.axes, extra_dilation=dilation)
    for index, name in enumerate(names):
        path = out / f"{name}.ply"
        written = save_scene(path, scenes.scene(index), options)
        print(f"wrote {path}" + (f" ({written.colors})" if written.colors else ""))


def _write_page(
    arguments: RenderArguments, generator: TrainedGenerator, names: list[str], scenes: Scenes, path: Path
) -> None:
    from cgsgan.export import ExportOptions, save_splat_page
    from cgsgan.types import Gaussians

    assert isinstance(scenes, Gaussians)
    ground = arguments.ground()
    assert ground is not None
    heads = [(name, scenes.scene(index).map(lambda tensor: tensor.cpu())) for index, name in enumerate(names)]
    options = ExportOptions(extra_dilation=generator.dilation if arguments.bake_dilation else 0.0, generated=True)
    background = "#" + bytes(round(255 * level) for level in ground).hex()
    save_splat_page(path, heads, options, background=background)
    print(f"wrote {path}: {path.stat().st_size:,} bytes")
