"""Everything that changes over a run, as pure functions of the number of images seen."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad


def blur_sigma(images_seen: int, *, initial: float, fade_kimg: float) -> float:
    """Standard deviation of the blur of all discriminator inputs, in pixels; fades linearly to 0 (EG3D, StyleGAN3)."""
    if fade_kimg <= 0:
        return 0.0
    return initial * max(1.0 - images_seen / (fade_kimg * 1000), 0.0)


def blur(images: Float[Tensor, "batch 3 height width"], sigma: float) -> Float[Tensor, "batch 3 height width"]:
    """Separable blur with taps 2^(-(i/sigma)^2) out to 3 sigma; the images themselves when that rounds to none."""
    radius = min(math.floor(3 * sigma), min(images.shape[-2:]) - 1)
    if radius < 1:
        return images
    positions = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp2(-((positions / sigma) ** 2))
    taps = (taps / taps.sum()).expand(images.shape[1], 1, 1, -1)
    channels = images.shape[1]
    blurred = conv2d(pad(images, (radius, radius, 0, 0), mode="reflect"), taps, groups=channels)
    return conv2d(pad(blurred, (0, 0, radius, radius), mode="reflect"), taps.mT, groups=channels)


def swap_probability(images_seen: int, *, start: float, final: float, kimg: float) -> float:
    """Probability that a generator is told a wrong camera: linear from ``start`` to ``final`` (EG3D, section 4.4)."""
    return _fade(images_seen, start=start, final=final, kimg=kimg)


def neural_resolution(images_seen: int, *, start: int, final: int | None, kimg: float) -> int:
    """Side in pixels of what is rendered before super-resolution: linear, rounded to even halves (EG3D, 2nd stage)."""
    return start if final is None else round(_fade(images_seen, start=float(start), final=float(final), kimg=kimg))


def density_noise(images_seen: int, *, initial: float, kimg: float) -> float:
    """Standard deviation of the noise on raw densities: linear from ``initial`` to 0 within ``kimg`` (pi-GAN)."""
    return initial * max(0.0, 1 - images_seen / (kimg * 1000)) if kimg > 0 else 0.0


def _fade(images_seen: int, *, start: float, final: float, kimg: float) -> float:
    share = min(images_seen / (kimg * 1000), 1.0) if kimg > 0 else 1.0
    return start * (1 - share) + final * share


def learning_rate_factor(images_seen: int, *, total_kimg: float, decay_kimg: float, final: float) -> float:
    """1, then a straight line down to ``final`` over the last ``decay_kimg`` of the run."""
    if decay_kimg <= 0:
        return 1.0
    left = max(total_kimg - images_seen / 1000, 0.0)
    return final + (1.0 - final) * min(left / decay_kimg, 1.0)


def passed(before: int, now: int, kimg: float) -> bool:
    """Whether a multiple of ``kimg`` thousand images lies in (before, now]."""
    return math.floor(before / (kimg * 1000)) != math.floor(now / (kimg * 1000))


def ema_beta(images_seen: int, *, batch_size: int, halflife_kimg: float, rampup: float) -> float:
    """Weight of the old average for one update: half-life ``halflife_kimg``, at most ``rampup`` of what was seen."""
    halflife = halflife_kimg * 1000
    if rampup > 0:
        halflife = min(halflife, images_seen * rampup)
    return 0.5 ** (batch_size / max(halflife, 1e-8))
