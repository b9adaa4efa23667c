"""How far pictures with few samples are from those with many."""

from __future__ import annotations

import torch
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.types import SdfPlanes


@torch.no_grad()
def audit_sampler(
    renderer: RobustRenderer, scenes: SdfPlanes, cameras: Cameras, *, size: int, factor: int
) -> dict[str, float]:
    """Peak signal-to-noise ratios, dB, of pictures with few samples against those with many even ones.

    All are deterministic, on white; the few are ``samples`` of the renderer's config at every pixel, as in training.

    Args:
        renderer: of the scenes.
        scenes: ``[B, ...]``.
        cameras: ``[B, V]``.
        size: width and height in pixels.
        factor: as many times more samples has the reference, one in each equal part of a ray.

    Returns:
        ``sampler_psnr``: where the sampler puts them. ``uniform_psnr``: as many, evenly placed; what a sampler has to
        beat, and what falls when surfaces become tight.

    Raises:
        ValueError: for a factor below 2: there is nothing to compare with.
    """
    if factor < 2:
        raise ValueError(f"audit_sampler: expected a factor of at least 2, got {factor}")
    samples = renderer.config.samples
    white = scenes.planes.new_ones(*cameras.viewmats.shape[:2], 3)
    placed, even, many = (
        way(scenes, cameras, size=size, backgrounds=white).images.clamp(0, 1)
        for way in (
            renderer.with_sampler(renderer.config.sampler, samples),
            renderer.with_sampler("uniform", samples),
            renderer.with_sampler("uniform", samples * factor),
        )
    )
    return {"sampler_psnr": _psnr(placed, many), "uniform_psnr": _psnr(even, many)}


def _psnr(pictures: Tensor, reference: Tensor) -> float:
    return float(-10 * (pictures - reference).square().mean().clamp_min(1e-10).log10())
