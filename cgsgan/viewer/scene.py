"""State -> styles -> scene -> picture; what has not changed since the last time is not made again."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras, intrinsics, invert_rigid, look_at, orbit
from cgsgan.gallery import latents_from_seeds
from cgsgan.generators import TrainedGenerator
from cgsgan.latents.directions import principal_direction
from cgsgan.latents.paths import mix_styles
from cgsgan.latents.style_space import StyleSpace
from cgsgan.models.gaussian_generator import GaussianGeneratorConfig
from cgsgan.models.implicit.generator import ImplicitGeneratorConfig
from cgsgan.rendering import Renderer, SplattingRenderer
from cgsgan.rendering.inspection import depth_colors, normal_colors, surface_normals, turn_to_camera
from cgsgan.types import Gaussians, GeneratorOutput, Scenes
from cgsgan.viewer.heads import Heads
from cgsgan.viewer.state import Limits, State
from rasterizer.normals import face_cameras, shortest_axes

SIZES = (64, 128, 256, 512, 1024)
DIRECTIONS = 6
LOOKS = ("colour", "depth", "normal", "alpha")
DEPTH_MARGIN = 0.6
"""Depths from this much before the target to this much behind it are told apart, world units."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SceneAndCount:
    """What is drawn.

    Attributes:
        scenes: one of them.
        count: its Gaussians; None for other scenes.
        total: Gaussians with all levels.
    """

    scenes: Scenes
    count: int | None
    total: int | None


class Explorer:
    """Draws states.

    Args:
        heads: what there is to explore.
        most_pixels: edge length of the largest picture.
    """

    def __init__(self, heads: Heads, *, most_pixels: int = SIZES[-1]) -> None:
        generator = heads.generator
        self.heads = heads
        self.layers = style_groups(generator)
        with torch.no_grad():
            first = generator(latents_from_seeds([0], generator.z_dim).to(device_of(generator)))
        self.splats = isinstance(first, GeneratorOutput)
        self.level_sizes = first.level_sizes if isinstance(first, GeneratorOutput) else ()
        sizes = tuple(size for size in SIZES if size <= most_pixels)
        self.limits = Limits(
            heads=heads.names,
            levels=max(1, len(self.level_sizes)),
            layers=tuple(self.layers),
            directions=min(DIRECTIONS, first.ws.shape[-1]),
            looks=LOOKS,
            sizes=sizes,
            size=max(size for size in sizes if size <= max(256, generator.resolution)),
            splats=self.splats,
        )
        self._kept: dict[str, tuple[Hashable, Any]] = {}
        self._space: StyleSpace | None = None
        self.made: dict[str, int] = {"styles": 0, "scene": 0, "picture": 0}
        """How often each was made, not found."""

    def styles(self, state: State) -> Float[Tensor, "1 num_ws w_dim"]:
        """The styles that a state describes.

        Both heads truncated, the first moved towards the second, groups of rows exchanged, then the steps along the
        principal directions.
        """
        return self._keep("styles", state.latent, lambda: self._make_styles(state))

    def scene(self, state: State) -> SceneAndCount:
        """The scene, with the levels and the sizes of Gaussians that the state asks for."""
        generator, _ = self.heads.open(state.head)
        with torch.no_grad():
            scenes = self._keep("scene", state.latent, lambda: generator(ws=self.styles(state)).scenes)
        if not isinstance(scenes, Gaussians):
            return SceneAndCount(scenes=scenes, count=None, total=None)
        kept = sum(self.level_sizes[: state.level])
        shown = scenes.map(lambda tensor: tensor[:, :kept])
        shown = replace(shown, scales=shown.scales * state.scale)
        return SceneAndCount(scenes=shown, count=kept, total=scenes.count)

    def picture(self, state: State, size: int | None = None) -> Float[Tensor, "3 size size"]:
        """The exact picture, RGB in [0, 1], drawn as in training; ``size`` replaces the state's."""
        return self._keep("picture", (state, size), lambda: self.draw(state, state_camera(state), size or state.size))

    def wide_picture(self, state: State, aspect: float) -> Float[Tensor, "3 height width"]:
        """The exact picture in the shape of a window, whose vertical field of view is the state's.

        Args:
            state: what to show; its size becomes the longer side.
            aspect: width over height.
        """
        camera = state_camera(state)
        if aspect > 1:
            shrink = torch.tensor([1 / aspect, 1 / aspect, 1.0])[:, None]
            Ks = torch.where(torch.eye(3, dtype=torch.bool), camera.Ks_normalized * shrink, camera.Ks_normalized)
            camera = replace(camera, Ks_normalized=Ks)
        # The renderer dilates in pixels of a picture whose height is its width; here the height is less.
        square = self.draw(state, camera, state.size, dilation=1 / max(aspect, 1.0))
        height = max(1, round(state.size / max(aspect, 1.0)))
        width = max(1, round(state.size * min(aspect, 1.0)))
        top, left = (state.size - height) // 2, (state.size - width) // 2
        return square[:, top : top + height, left : left + width]

    @torch.no_grad()
    def draw(
        self, state: State, cameras: Cameras, size: int, *, dilation: float | int = 1.0
    ) -> Float[Tensor, "3 size size"]:
        """A state seen from another camera ``[1, 1]``; nothing of the picture is kept.

        Args:
            state: what to show.
            cameras: where from.
            size: pixels.
            dilation: factor on the renderer's, which is counted in pixels.
        """
        generator, _ = self.heads.open(state.head)
        device = device_of(generator)
        background = torch.tensor(state.background, device=device) / 255
        cameras = cameras.map(lambda tensor: tensor.to(device))
        scenes, behind = self.scene(state).scenes, background
        if state.look == "normal" and isinstance(scenes, Gaussians):
            scenes, behind = color_by_normals(scenes, cameras), torch.zeros_like(background)
        output = _dilated(generator.renderer, dilation)(
            scenes, cameras, size=size, backgrounds=behind.expand(1, 1, 3), depth=state.look in ("depth", "normal")
        )
        if state.look == "colour":
            return output.images[0, 0].clamp(0, 1).cpu()
        alphas = output.alphas[0, 0].movedim(-1, 0)
        if state.look == "alpha":
            return alphas.clamp(0, 1).expand(3, -1, -1).cpu()
        assert output.depths is not None
        if state.look == "depth":
            near, far = state.radius - DEPTH_MARGIN, state.radius + DEPTH_MARGIN
            colors = depth_colors(output.depths, near=near, far=far)
        elif isinstance(scenes, Gaussians):  # the mean over what is there, as long as a normal is
            mean = output.images[0, 0] / alphas.clamp_min(1e-6) * 2 - 1
            colors = normal_colors(torch.nn.functional.normalize(mean, dim=0).movedim(0, -1))[None, None]
        else:
            normals = surface_normals(generator.renderer, scenes, cameras, output.depths)
            colors = normal_colors(turn_to_camera(normals, cameras))
        return background[:, None, None].lerp(colors[0, 0].movedim(-1, 0), alphas).clamp(0, 1).cpu()

    def _make_styles(self, state: State) -> Tensor:
        generator, found = self.heads.open(state.head)
        device = device_of(generator)
        first = self._mapped(generator, state.seed) if found is None else found
        second = self._mapped(generator, state.other_seed)
        average = generator.network.mapping.w_average
        first, second = (average.lerp(ws, state.psi) if state.psi != 1 else ws for ws in (first, second))
        ws = first.lerp(second, state.share)
        for rows, chosen in zip(self.layers.values(), state.mixed):
            if chosen:
                ws = mix_styles(ws, second, rows)
        for index, step in enumerate(state.steps):
            if step:
                ws = ws + step * principal_direction(self._style_space(), index).to(device)
        return ws

    @torch.no_grad()
    def _mapped(self, generator: TrainedGenerator, seed: int) -> Tensor:
        z = latents_from_seeds([seed], generator.z_dim).to(device_of(generator))
        return generator.map_latents(z).clone()

    def _style_space(self) -> StyleSpace:
        if self._space is None:
            generator = self.heads.generator
            device = device_of(generator)
            self._space = StyleSpace.of(lambda z: generator.map_latents(z.to(device)).cpu(), generator.z_dim)
        return self._space

    def _keep(self, what: str, key: Hashable, make: Callable[[], T]) -> T:
        if what not in self._kept or self._kept[what][0] != key:
            self._kept.pop(what, None)
            self._kept[what] = key, make()
            self.made[what] += 1
        return self._kept[what][1]


def color_by_normals(scenes: Gaussians, cameras: Cameras) -> Gaussians:
    """Scenes in which colours are normals as normal maps hold them (x right, y up, z towards the camera, -1..1 as
    0..1); a Gaussian's normal is its shortest axis.

    Args:
        scenes: ``[1, N]``.
        cameras: ``[1, 1]``.
    """
    axes = face_cameras(shortest_axes(scenes.quats, scenes.scales), scenes.means, cameras.viewmats)[:, 0]
    flips = axes.new_tensor([1.0, -1.0, -1.0])
    in_camera = axes @ cameras.viewmats[:, 0, :3, :3].mT * flips
    return replace(scenes, colors=(in_camera + 1) / 2)


def _dilated(renderer: Renderer, factor: float | int) -> Renderer:
    if factor == 1 or not isinstance(renderer, SplattingRenderer):
        return renderer
    config = replace(renderer.config, eps2d=renderer.config.eps2d * factor**2)
    return SplattingRenderer(config, renderer.training_size)


def device_of(generator: TrainedGenerator) -> torch.device:
    """Where a generator is."""
    return next(generator.parameters()).device


def style_groups(generator: TrainedGenerator) -> dict[str, slice]:
    """Groups of style rows that are mixed together, coarse to fine: for Gaussians the blocks before each level, for
    tri-planes those of each size of feature maps, for implicit fields each sine layer.
    """
    config = generator.config.generator
    if isinstance(config, GaussianGeneratorConfig):
        levels = len(config.anchors.resolve_split_factors(config.resolution))
        transformer = config.transformer
        ends = [transformer.block_count(level + 1) for level in range(levels)]
        names = [f"level {level + 1}" for level in range(levels)]
    elif isinstance(config, ImplicitGeneratorConfig):
        ends = list(range(1, config.field.layers + 2))
        names = [f"layer {end}" for end in ends[:-1]] + ["colour"]
    else:
        sizes = config.backbone.sizes
        ends = [2 * (index + 1) for index in range(len(sizes))]
        names = [f"{size} px" for size in sizes]
    return {name: slice(start, end) for name, start, end in zip(names, [0, *ends], ends)}


def focal_of(fov: float) -> float:
    """Focal length over image size of a field of view in degrees."""
    return 0.5 / math.tan(math.radians(fov) / 2)


def state_camera(state: State) -> Cameras:
    """The camera of a state, ``[1, 1]``."""
    angles = [torch.full((1, 1), math.radians(angle)) for angle in (state.yaw, state.pitch)]
    centered = orbit(angles[0], angles[1], radius=state.radius, focal=focal_of(state.fov))
    if state.target == (0.0, 0.0, 0.0):
        return centered
    target = torch.tensor(state.target)
    cam_to_world = look_at(centered.cam_to_world[..., :3, 3] + target, target)
    Ks = intrinsics(focal_of(state.fov)).expand(1, 1, 3, 3)
    return Cameras(viewmats=invert_rigid(cam_to_world), Ks_normalized=Ks)
