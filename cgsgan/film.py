"""Films of heads: turntables, walks through latents, grids of both. A frame is a function of its number alone.

A generator is asked once for heads that only turn, and frame by frame for heads that change; cameras never reach it.
What is in memory is the heads and one frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cgsgan.cameras import Cameras, turntable
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.export.frames import save_frames
from cgsgan.export.images import make_grid, to_uint8
from cgsgan.export.video import TRANSPARENT_FORMATS, save_video
from cgsgan.gallery import WHITE, LatentGenerator, generate_scenes
from cgsgan.latents.paths import closed_walk
from cgsgan.rendering.inspection import depth_colors, normal_colors, surface_normals, turn_to_camera
from cgsgan.rendering.renderer import Renderer
from cgsgan.types import RenderOutput, Scenes, as_batch, cat_scenes, scene_count

Shown = Literal["color", "depth", "normal", "alpha"]
Color = tuple[float, float, float]
DEPTH_REACH = 0.25
"""World units before and behind the origin over which depth is shown; the surface of a head lies within."""
HEADS_AT_ONCE = 8
"""Pictures that are rendered in one call; bounds the memory of large grids."""
LONGEST_SIDE = 8192
"""Pixels of a frame; what encoders and players take."""
GRID_COLUMNS = 4
"""Heads side by side, up to 16 of them, when nobody chose."""


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """What a frame shows.

    Attributes:
        size: pixels of each picture.
        show: one or more pictures of each head, side by side. Depth is z-depth, from the camera's distance to the
            origin less 0.25 world units (yellow) to that plus 0.25 (violet), in all frames and for all heads.
            Normals: see :func:`~cgsgan.rendering.inspection.surface_normals`; x, y, z from -1 to 1 are red, green, blue
            from 0 to 1. Alpha is coverage, black to white.
        background: RGB in [0, 1]; None: transparent, frames are RGBA.
        normal_axes: ``world`` (x the subject's left, y up, z where the face looks; a head keeps its colours while it
            turns) or ``camera`` (x right, y up, z towards the camera).
        columns: heads in a row of the grid; None: 4 for up to 16 heads, else about as many as rows.
    """

    size: int
    show: tuple[Shown, ...] = ("color",)
    background: Color | None = WHITE
    normal_axes: Literal["world", "camera"] = "world"
    columns: int | None = None


class Film:
    """Frames of heads; an iterable with a length.

    Args:
        renderer: draws them.
        heads: the scenes of a frame; deterministic.
        cameras: ``[frame]``.
        options: see :class:`FrameOptions`.

    Raises:
        ValueError: when a frame would be larger than ``LONGEST_SIDE``, or nothing is shown.
    """

    def __init__(
        self, renderer: Renderer, heads: Callable[[int], Scenes], cameras: Cameras, options: FrameOptions
    ) -> None:
        if not options.show:
            raise ValueError("film: expected something to show: color, depth, normal or alpha")
        self.renderer = renderer
        self.heads = heads
        self.cameras = cameras
        self.options = options

    def __len__(self) -> int:
        return len(self.cameras.viewmats)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "height width channel"]]:
        return (self.frame(index) for index in range(len(self)))

    @torch.no_grad()
    def frame(self, index: int) -> UInt8[np.ndarray, "height width channel"]:
        """Frame ``index`` of the film, the same bits whether others were made before or not.

        Raises:
            ValueError: when it would be larger than ``LONGEST_SIDE``.
        """
        scenes, options = self.heads(index), self.options
        kinds, count = len(options.show), scene_count(scenes)
        columns = grid_columns(count, options.columns)
        padding = 0 if count * kinds == 1 else 2
        longest = (options.size + padding) * max(columns * kinds, -(-count // columns))
        if longest > LONGEST_SIDE:
            raise ValueError(
                f"film: expected frames of at most {LONGEST_SIDE} pixels a side, {count} heads of {options.size} would "
                f"make {longest}; take fewer heads, a smaller size or other columns"
            )
        camera = self.cameras.map(lambda t: t[index : index + 1].to(scenes.tensors()[0].device))
        pictures = [
            self._pictures(scenes.map(lambda t, i=start: t[i : i + HEADS_AT_ONCE]), camera)
            for start in range(0, count, HEADS_AT_ONCE)
        ]
        ground = (0.0, 0.0, 0.0, 0.0) if options.background is None else options.background
        grid = make_grid(torch.cat(pictures), columns=columns * kinds, padding=padding, background=ground)
        return to_uint8(grid)

    def _pictures(self, scenes: Scenes, camera: Cameras) -> Float[Tensor, "picture channel size size"]:
        """Those of each head, side by side."""
        options, count = self.options, scene_count(scenes)
        cameras = camera.map(lambda t: t.expand(count, *t.shape))
        ground = (0.0, 0.0, 0.0) if options.background is None else options.background
        backgrounds = cameras.viewmats.new_tensor(ground).expand(count, 1, 3)
        depth = "depth" in options.show or "normal" in options.show
        render = self.renderer(scenes, cameras, size=options.size, backgrounds=backgrounds, depth=depth)
        pictures = []
        for kind in options.show:
            colors, cover = self._layer(kind, render, scenes, cameras)
            if options.background is None:
                pictures.append(torch.cat([colors, cover], dim=2))
            else:
                pictures.append(colors if kind == "color" else backgrounds[..., None, None].lerp(colors, cover))
        return torch.stack(pictures, dim=1).flatten(0, 2).cpu()

    def _layer(
        self, kind: Shown, render: RenderOutput, scenes: Scenes, cameras: Cameras
    ) -> tuple[Float[Tensor, "head 1 3 size size"], Float[Tensor, "head 1 1 size size"]]:
        """Colours, and how far they cover; where the background is solid, ``color`` has it already."""
        cover = render.alphas.movedim(-1, -3)
        if kind == "color":
            return render.images / cover.clamp_min(1e-6) if self.options.background is None else render.images, cover
        if kind == "alpha":
            return cover.expand(-1, -1, 3, -1, -1), torch.ones_like(cover)
        assert render.depths is not None
        if kind == "depth":
            distances = cameras.cam_to_world[..., :3, 3].norm(dim=-1)[..., None, None, None]
            colors = depth_colors(render.depths - distances, near=-DEPTH_REACH, far=DEPTH_REACH)
        else:
            normals = surface_normals(self.renderer, scenes, cameras, render.depths)
            world = self.options.normal_axes == "world"
            colors = normal_colors(normals if world else turn_to_camera(normals, cameras))
        return colors.movedim(-1, -3), cover


def grid_columns(count: int, columns: int | None = None) -> int:
    """Heads in a row of a grid of ``count``."""
    if columns is None:
        columns = GRID_COLUMNS if count <= GRID_COLUMNS**2 else math.ceil(math.sqrt(count))
    return min(columns, count)


def turn_heads(renderer: Renderer, scenes: Scenes, cameras: Cameras, options: FrameOptions) -> Film:
    """A film of heads that do not change.

    Args:
        renderer: draws them.
        scenes: one or more heads.
        cameras: ``[frame]``, such as :func:`~cgsgan.cameras.turntable` gives.
        options: what a frame shows.
    """
    return Film(renderer, lambda frame: scenes, cameras, options)


def walk_heads(
    generator: LatentGenerator,
    renderer: Renderer,
    stations: Float[Tensor, "station head num_ws w_dim"],
    cameras: Cameras,
    options: FrameOptions,
) -> Film:
    """A film of heads that turn into others, and back into the first: closed splines through styles.

    Args:
        generator: makes scenes of styles.
        renderer: draws them.
        stations: styles to pass through, at least 2, of each head in the grid.
        cameras: ``[frame]``.
        options: what a frame shows.

    Raises:
        ValueError: for fewer than 2 stations.
    """
    styles = closed_walk(stations, len(cameras.viewmats))

    def heads(frame: int) -> Scenes:
        # One by one: what a matrix product rounds to may depend on the rows beside it.
        return cat_scenes([generate_scenes(generator, ws) for ws in styles[frame].split(1)])

    return Film(renderer, heads, cameras, options)


def save_film(
    path: Path, film: Film, *, fps: float | int = 24, progress: Progress = ignore_progress, repeat: int = 1
) -> int:
    """Write a film, atomically; it loops by itself in webp and gif.

    Args:
        path: .webp, .gif, .mp4, .webm; or a name without any of these endings for a folder of PNG files.
        film: its frames are made one by one.
        fps: frames per second.
        progress: called after each frame.
        repeat: how often mp4 and webm play the frames; more than once keeps them all in memory.

    Returns:
        The number of frames.

    Raises:
        ValueError: as :func:`~cgsgan.export.video.save_video` and :func:`~cgsgan.export.frames.save_frames`, or for
            transparency in a format that has none.
    """
    kind = path.suffix.lstrip(".").lower()
    if film.options.background is None and kind and kind not in TRANSPARENT_FORMATS:
        raise ValueError(
            f"{path}: {kind} holds no transparency here; choose {' or '.join(TRANSPARENT_FORMATS)} or png frames"
        )
    frames = _Watched(film, f"frames of {path.name}", progress)
    return save_video(path, frames, fps=fps, repeat=repeat) if kind else save_frames(path, frames)


class _Watched:
    """A film whose frames are counted while they are taken."""

    def __init__(self, film: Film, task: str, progress: Progress) -> None:
        self.film = film
        self.task = task
        self.progress = progress

    def __len__(self) -> int:
        return len(self.film)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "height width channel"]]:
        for done, frame in enumerate(self.film):
            self.progress(self.task, done, len(self.film))
            yield frame
        self.progress(self.task, len(self.film), len(self.film))


def save_turntable(
    path: Path | str,
    renderer: Renderer,
    scenes: Scenes,
    *,
    size: int,
    frames: int = 48,
    kind: str = "swing",
    fps: int = 24,
) -> None:
    """Write heads turning side by side, on white; :func:`save_film` and :func:`turn_heads` know more.

    >>> generator = cgsgan.load_generator()
    >>> cgsgan.save_turntable("heads.webp", generator.renderer, generator.sample([3, 5]), size=64, frames=8)

    Args:
        path: .webp or .gif, with ``cgsgan[video]`` .mp4 or .webm.
        renderer: of the generator.
        scenes: a batch, or one scene of Gaussians.
        size: pixels of each picture.
        frames: of one round; it loops.
        kind: camera path, see :func:`~cgsgan.cameras.turntable`.
        fps: frames a second.
    """
    film = turn_heads(renderer, as_batch(scenes), turntable(frames, kind=kind), FrameOptions(size=size))
    save_film(Path(path), film, fps=fps)
