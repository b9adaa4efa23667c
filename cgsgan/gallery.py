"""Pictures of a generator: contact sheets of seeds and views, single scenes; films of them are in ``film.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras, orbit
from cgsgan.export.color_fit import ColorFit, fit_colors
from cgsgan.export.formats import FORMATS, format_of, write_splats
from cgsgan.export.images import make_grid, save_image
from cgsgan.export.scene import DEFAULTS, ExportOptions
from cgsgan.rendering.renderer import Renderer
from cgsgan.types import Gaussians, GeneratorOutput, SceneOutput, Scenes, cat_scenes, scene_count

SHEET_VIEWS = ((-40.0, 0.0), (-20.0, 8.0), (0.0, 0.0), (20.0, -8.0), (40.0, 0.0))
"""Yaw and pitch in degrees of the views of a contact sheet."""
WHITE = (1.0, 1.0, 1.0)
LARGEST_TILE = 256
"""Pictures of sheets and turntables that nobody chose the size of are at most this large, pixels."""
SCENES_AT_ONCE = 2
MOST_SEEDS = 1 << 31
"""Seeds are below this: with the stream of latents added they stay within what torch takes."""


@runtime_checkable
class LatentGenerator(Protocol):
    """Anything that turns latents into scenes."""

    def __call__(
        self, z: Tensor | None = None, *, ws: Tensor | None = None, truncation_psi: float = 1.0
    ) -> SceneOutput:
        """Generate a batch of scenes from latents or styles."""
        ...


@runtime_checkable
class KnownHeads(Protocol):
    """A generator that may come with heads of its own, found in photographs."""

    @property
    def z_dim(self) -> int:
        """Length of a latent."""
        ...

    @property
    def found(self) -> Tensor | None:
        """Their styles."""
        ...


# Far from the seeds of training: the first numbers of a seed's stream are the first weights of a network that was made
# with it, and the mapping network answers its own weights with broken scenes. Below 2^32: the generator reads no more.
LATENT_STREAM = 0x6C61_7465


def latents_from_seeds(seeds: Sequence[int], z_dim: int) -> Float[Tensor, "seed z_dim"]:
    """One latent per seed; a seed gives the same latent in every batch and on every device."""
    generators = (torch.Generator().manual_seed(LATENT_STREAM + seed) for seed in seeds)
    return torch.stack([torch.randn(z_dim, generator=generator) for generator in generators])


def choose_heads(
    generator: KnownHeads, seeds: Sequence[int] | None, *, otherwise: Sequence[int]
) -> tuple[list[str], Float[Tensor, "head *row latent"]]:
    """Which heads of a generator to show, with names for their files.

    Args:
        generator: what :func:`cgsgan.load_generator` gives.
        seeds: identities; None: the heads that were found in photographs, if it comes with any.
        otherwise: identities when it does not.

    Returns:
        Names, and latents z or, of found heads, styles: :func:`generate_scenes` takes both.
    """
    if seeds is None and generator.found is not None:
        return [f"found-{index}" for index in range(len(generator.found))], generator.found
    chosen = otherwise if seeds is None else seeds
    return [f"seed-{seed:04d}" for seed in chosen], latents_from_seeds(chosen, generator.z_dim)


@torch.no_grad()
def generate_scenes(
    generator: LatentGenerator, z: Float[Tensor, "batch *row latent"], *, truncation_psi: float = 1.0, chunk: int = 16
) -> Scenes:
    """Scenes for any number of latents ``[batch, z_dim]`` or styles ``[batch, num_ws, w_dim]``, not truncated, in
    chunks that bound the memory.
    """
    if z.ndim == 3:
        return cat_scenes([generator(ws=part).scenes for part in z.split(chunk)])
    return cat_scenes([generator(part, truncation_psi=truncation_psi).scenes for part in z.split(chunk)])


@torch.no_grad()
def render_views(
    renderer: Renderer,
    scenes: Scenes,
    cameras: Cameras,
    *,
    size: int,
    background: tuple[float, float, float] = WHITE,
) -> Float[Tensor, "batch view 3 size size"]:
    """Every scene from every one of V cameras, on one background colour."""
    batch, device = scene_count(scenes), scenes.tensors()[0].device
    shared = cameras.map(lambda t: t.to(device).expand(batch, *t.shape))
    backgrounds = torch.tensor(background, device=device).expand(batch, shared.viewmats.shape[1], 3)
    return renderer(scenes, shared, size=size, backgrounds=backgrounds).images


def contact_sheet(
    generator: LatentGenerator,
    renderer: Renderer,
    z: Float[Tensor, "seed *row latent"],
    *,
    size: int,
    truncation_psi: float = 1.0,
    columns: int = 2,
    views: Sequence[tuple[float, float]] = SHEET_VIEWS,
    background: tuple[float, float, float] = WHITE,
) -> Float[Tensor, "3 height width"]:
    """Seeds as rows, ``views`` (degrees) as columns, ``columns`` such blocks side by side; RGB in [0, 1]."""
    angles = torch.tensor(views).mul(math.pi / 180)
    cameras = orbit(angles[:, 0], angles[:, 1])
    images = []
    for latent in z.split(SCENES_AT_ONCE):  # bounds the memory of large presets
        scenes = generate_scenes(generator, latent, truncation_psi=truncation_psi)
        images.append(render_views(renderer, scenes, cameras, size=size, background=background).flatten(0, 1).cpu())
    return make_grid(torch.cat(images), columns=columns * len(views), background=background)


def save_contact_sheet(path: Path, sheet: Float[Tensor, "3 height width"], *, smallest: int = 640) -> None:
    """Write a sheet as PNG, enlarged by a whole factor when it is too small to look at."""
    factor = max(1, round(smallest / sheet.shape[-1]))
    save_image(path, sheet.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2))


@runtime_checkable
class DilatedGenerator(LatentGenerator, Protocol):
    """A generator that knows its latents and its renderer's dilation."""

    @property
    def z_dim(self) -> int:
        """Length of a latent."""
        ...

    @property
    def found(self) -> Tensor | None:
        """Styles of heads that were found in photographs."""
        ...

    @property
    def dilation(self) -> float:
        """The renderer's dilation as a standard deviation in world units."""
        ...


@dataclass(frozen=True, kw_only=True)
class WrittenScene:
    """What came into a splat file.

    Attributes:
        count: Gaussians.
        colors: how colours above 1 were brought into reach of viewers; None: they are as they were.
    """

    count: int
    colors: ColorFit | None = None


@torch.no_grad()
def export_head(
    generator: DilatedGenerator,
    path: Path,
    options: ExportOptions = DEFAULTS,
    *,
    seed: int | None = None,
    truncation_psi: float = 1.0,
    levels: int | None = None,
    bake_dilation: bool = True,
    fit: bool = True,
) -> WrittenScene:
    """Write one generated head as a splat file.

    Args:
        generator: what :func:`cgsgan.load_generator` gives.
        path: the file; its ending names the format.
        options: axes and pruning; the dilation is set here.
        seed: which head; None: the one that was found in a photograph, or 0.
        truncation_psi: 1 is full variety, 0 the average head.
        levels: only the Gaussians of this many first (coarsest) levels; None takes all.
        bake_dilation: add the renderer's pixel dilation to the scales, so that a viewer shows what was trained.
        fit: where colours are above 1, which viewers cut off, write what :func:`cgsgan.export.fit_colors` makes of
            them. Pages show them as they are.

    Raises:
        ValueError: for a seed or level that is not there, a generator whose scenes are no Gaussians, or as
            :func:`cgsgan.export.write_splats`.
    """
    if seed is not None and not 0 <= seed < MOST_SEEDS:
        raise ValueError(f"seed: expected 0 to {MOST_SEEDS - 1}, got {seed}")
    _, latents = choose_heads(generator, None if seed is None else [seed], otherwise=[0])
    made = generator(ws=latents[:1]) if latents.ndim == 3 else generator(latents, truncation_psi=truncation_psi)
    if not isinstance(made, GeneratorOutput):
        raise ValueError(
            f"{path}: expected a generator of Gaussians; the scenes of this one cannot be written as splats"
        )
    count = len(made.level_sizes)
    if levels is not None and not 1 <= levels <= count:
        raise ValueError(f"level: expected 1 to {count}, the levels of this generator, got {levels}")
    kept = sum(made.level_sizes[:levels])
    scene = made.gaussians.scene(0).map(lambda tensor: tensor[:kept].cpu())
    dilation = generator.dilation if bake_dilation else 0.0
    return save_scene(path, scene, replace(options, extra_dilation=dilation, generated=True), fit=fit)


def save_scene(path: Path, scene: Gaussians, options: ExportOptions = DEFAULTS, *, fit: bool = True) -> WrittenScene:
    """Write one scene in the format that the file's name asks for, with colours as :func:`export_head` has them."""
    scene = scene.map(lambda tensor: tensor.detach().cpu())
    if not fit or format_of(path) is FORMATS[".html"]:
        return WrittenScene(count=write_splats(path, scene, options))
    found = fit_colors(scene, dilation=options.extra_dilation)
    return WrittenScene(
        count=write_splats(path, found.scene, options), colors=found if math.isfinite(found.cut) else None
    )


__all__ = [
    "SHEET_VIEWS",
    "WrittenScene",
    "choose_heads",
    "contact_sheet",
    "export_head",
    "generate_scenes",
    "latents_from_seeds",
    "render_views",
    "save_contact_sheet",
    "save_scene",
]
