"""``cgsgan mesh [RUN_OR_CHECKPOINT] OUT.glb [--seed 0] [--resolution 128]``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class MeshArguments:
    """Write one head as a coloured mesh: y up, face along +z, watertight.

    Attributes:
        files: a run folder, a checkpoint folder or a generator.safetensors, and the mesh to write, ending in .glb,
            .ply or .obj. The mesh alone: of the generator that comes with the package.
        seed: identity; default the one that `cgsgan invert` found, or 0.
        psi: truncation; 1 is full variety, 0 the average head.
        resolution: grid points along each side of the cube that is meshed.
        method: density looks at the field of tri-planes or of an implicit generator, distance at that of tri-planes of
            signed distance; views fuses rendered depth and colour, of any generator. auto is density or distance where
            there is one, views for Gaussians.
        level: density per world unit at the surface, for --method density (default 10).
        views: pictures that are fused, for --method views.
        best: of a run folder, the checkpoint with the best score (--training.evaluate-kimg) instead of the newest.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    seed: int | None = None
    psi: float = 1.0
    resolution: int = 128
    method: Literal["auto", "density", "distance", "views"] = "auto"
    level: float | None = None
    views: int = 64
    best: bool = False


def run(argv: list[str]) -> int:
    """Parse, make the mesh, say what was written."""
    arguments = tyro.cli(MeshArguments, args=argv, prog="cgsgan mesh")
    checkpoint, out = _check(arguments)

    from cgsgan.data.progress import progress_bar
    from cgsgan.export.mesh import write_mesh
    from cgsgan.gallery import choose_heads, generate_scenes
    from cgsgan.generators import load_generator

    generator = load_generator(checkpoint, best=arguments.best)
    _, heads = choose_heads(generator, None if arguments.seed is None else [arguments.seed], otherwise=[0])
    scenes = generate_scenes(generator, heads[:1], truncation_psi=arguments.psi)
    with progress_bar() as progress:
        mesh = _mesh(arguments, generator.renderer, scenes, progress)
    write_mesh(out, mesh)
    closed = "watertight" if mesh.watertight else "not watertight"
    print(f"wrote {out}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles, {closed}, y up, face along +z")
    return 0


def _check(arguments: MeshArguments) -> tuple[Path | None, Path]:
    """Everything that can be wrong before anything slow is done."""
    from cgsgan.export.mesh import check_mesh_path
    from cgsgan.meshing.surface import VoxelGrid, check_meshing

    if not 1 <= len(arguments.files) <= 2:
        raise ValueError(f"expected [RUN_OR_CHECKPOINT] OUT.glb, got {len(arguments.files)} files")
    out = arguments.files[-1]
    check_mesh_path(out)
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; expected a file to write")
    if not math.isfinite(arguments.psi):
        raise ValueError(f"--psi: expected a finite number, usually 0 to 1, got {arguments.psi}")
    if arguments.seed is not None and arguments.seed < 0:
        raise ValueError(f"--seed: expected a number >= 0, got {arguments.seed}")
    if arguments.views < 1:
        raise ValueError(f"--views: expected at least 1, got {arguments.views}")
    VoxelGrid(resolution=arguments.resolution, half_side=1.0)
    check_meshing()
    return (arguments.files[0] if len(arguments.files) == 2 else None), out


def _mesh(arguments: MeshArguments, renderer, scenes, progress):
    from cgsgan.meshing import FusionSettings, fuse_views, mesh_density, mesh_zero_level, surrounding_views
    from cgsgan.meshing.density import LEVEL
    from cgsgan.types import ImplicitScenes, SdfPlanes, TriPlanes

    fields = {TriPlanes: "density", ImplicitScenes: "density", SdfPlanes: "distance"}
    own = fields.get(type(scenes), "views")
    method = own if arguments.method == "auto" else arguments.method
    if method not in {own, "views"}:
        raise ValueError(f"--method {method}: these scenes are {_kind(scenes)}, which have none; use --method {own}")
    if arguments.level is not None and method != "density":
        raise ValueError("--level: is a density of a field; other surfaces have none")
    if method == "density":
        level = LEVEL if arguments.level is None else arguments.level
        return mesh_density(renderer, scenes, resolution=arguments.resolution, level=level, progress=progress)
    if method == "distance":
        return mesh_zero_level(renderer, scenes, resolution=arguments.resolution, progress=progress)
    settings = FusionSettings(resolution=arguments.resolution, size=max(128, 2 * arguments.resolution))
    return fuse_views(renderer, scenes, surrounding_views(arguments.views), settings, progress=progress)


def _kind(scenes) -> str:
    from cgsgan.types import Gaussians, SdfPlanes, TriPlanes

    names = {Gaussians: "Gaussians", TriPlanes: "tri-planes of density", SdfPlanes: "tri-planes of signed distance"}
    return names.get(type(scenes), "implicit fields")
