"""The rays of pictures, laid out scene by scene, with what random places along them are made from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.rendering.jitter import pixel_keys
from cgsgan.rendering.rays import Rays
from cgsgan.types import Scenes, scene_count

Keys = tuple[Int64[Tensor, "batch ray"], Int64[Tensor, "batch ray"]]


@dataclass(frozen=True, kw_only=True)
class RayBundle:
    """R rays of each of B scenes.

    Attributes:
        origins: world units.
        directions: unit vectors.
        keys: what random places along each ray are made from, first and second pass; None: the regular places.
        noise_keys: what noise of density is made from, likewise; None: there is none.
    """

    origins: Float[Tensor, "batch ray 3"]
    directions: Float[Tensor, "batch ray 3"]
    keys: Keys | None = None
    noise_keys: Keys | None = None

    def part(self, scenes: slice, rays: slice) -> RayBundle:
        """Some rays of some scenes."""
        keys, noise_keys = self.keys, self.noise_keys
        return RayBundle(
            origins=self.origins[scenes, rays],
            directions=self.directions[scenes, rays],
            keys=None if keys is None else (keys[0][scenes, rays], keys[1][scenes, rays]),
            noise_keys=None if noise_keys is None else (noise_keys[0][scenes, rays], noise_keys[1][scenes, rays]),
        )


def bundle_rays(
    rays: Rays,
    jitter_seeds: Int64[Tensor, "batch view"] | None,
    *,
    pixels: Int64[Tensor, " pixel"] | None = None,
    noisy: bool = False,
) -> RayBundle:
    """The rays of B x V pictures as V x pixels rays of B scenes.

    Args:
        rays: of whole pictures.
        jitter_seeds: one for each picture; None: regular places.
        pixels: row * width + column of the rays that are wanted; None: all of them.
        noisy: also make keys of noise.
    """
    directions, keys, noise_keys = rays.directions, None, None
    if pixels is None:
        pixels = torch.arange(directions.shape[2], device=directions.device)
    else:
        directions = directions[:, :, pixels]
    if jitter_seeds is not None:
        seeds = jitter_seeds.to(directions.device)
        # Keys of noise are streams of their own: with noise or without, samples lie where they lie.
        drawn = [pixel_keys(seeds, pixels, stream=s).flatten(1) for s in range(4 if noisy else 2)]
        keys, noise_keys = (drawn[0], drawn[1]), (drawn[2], drawn[3]) if noisy else None
    origins = rays.origins.unsqueeze(2).expand_as(directions)
    return RayBundle(
        origins=origins.flatten(1, 2), directions=directions.flatten(1, 2), keys=keys, noise_keys=noise_keys
    )


def check_pictures(
    renderer: str, scenes: Scenes, cameras: Cameras, jitter_seeds: Int64[Tensor, "batch view"] | None
) -> None:
    """Refuse cameras and seeds that are not those of the scenes.

    Args:
        renderer: who says so.
        scenes: ``[B, ...]``.
        cameras: ``[B, V]``.
        jitter_seeds: one for each picture, or none.

    Raises:
        ValueError: names what came.
    """
    batch, views = cameras.viewmats.shape[:2]
    if scene_count(scenes) != batch:
        raise ValueError(f"{renderer}: got {scene_count(scenes)} scenes but cameras for {batch}")
    if jitter_seeds is not None and tuple(jitter_seeds.shape) != (batch, views):
        raise ValueError(
            f"{renderer}: expected jitter_seeds [{batch}, {views}], one per picture, got {list(jitter_seeds.shape)}"
        )
