"""How far pictures with few samples are from those with many."""

from __future__ import annotations

import torch

from cgsgan.cameras import Cameras
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.types import SdfPlanes


@torch.no_grad()
def sampler_psnr(renderer: RobustRenderer, scenes: SdfPlanes, cameras: Cameras, *, size: int, factor: int) -> float:
    """Peak signal-to-noise ratio, dB, of pictures with the sampler's few samples against those with many even ones.

    Both are deterministic, on white; ``samples`` of the renderer's config at every pixel, as in training.

    Args:
        renderer: of the scenes.
        scenes: ``[B, ...]``.
        cameras: ``[B, V]``.
        size: width and height in pixels.
        factor: as many times more samples has the reference, one in each equal part of a ray.

    Raises:
        ValueError: for a factor below 2: there is nothing to compare with.
    """
    if factor < 2:
        raise ValueError(f"sampler_psnr: expected a factor of at least 2, got {factor}")
    samples = renderer.config.samples
    white = scenes.planes.new_ones(*cameras.viewmats.shape[:2], 3)
    few, many = (
        way(scenes, cameras, size=size, backgrounds=white).images.clamp(0, 1)
        for way in (
            renderer.with_sampler(renderer.config.sampler, samples),
            renderer.with_sampler("uniform", samples * factor),
        )
    )
    return float(-10 * (few - many).square().mean().clamp_min(1e-10).log10())
