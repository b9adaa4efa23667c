"""Random numbers that are a function of what they are for: the picture, the pixel, the sample.

A stream of random numbers depends on the order in which it is read, hence on chunks, batches and processes. Here every
number is a hash of its place, in 64-bit integers that wrap alike on every device. The mixing function is the finaliser
of SplitMix64 (Steele, Lea, Flood 2014, with Stafford's thirteenth set of constants), the sequence within a pixel is
SplitMix64 itself.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

FRACTION_BITS = 24
"""Of a float32 in [0, 1): every value is exact, and 1 is never reached by rounding."""
_SIGN = 1 << 63


def _signed(value: int) -> int:
    """A 64-bit pattern as the integer that torch's int64 holds."""
    return (value & (2 * _SIGN - 1)) - 2 * (value & _SIGN)


_GAMMA = _signed(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def pixel_keys(
    picture_seeds: Int64[Tensor, "*batch"], pixels: Int64[Tensor, " pixel"], *, stream: int
) -> Int64[Tensor, "*batch pixel"]:
    """A key for every pixel of every picture.

    Args:
        picture_seeds: any integers; a picture keeps its numbers in every batch.
        pixels: row * width + column.
        stream: tells apart numbers that are drawn for different purposes.
    """
    keys = _mix(_mix(picture_seeds) + _signed((stream + 1) * _GAMMA))
    return _mix(keys.unsqueeze(-1) + (pixels + 1) * _GAMMA)


def uniform_samples(keys: Int64[Tensor, "*batch"], count: int) -> Float[Tensor, "*batch count"]:
    """``count`` independent numbers in [0, 1) per key; multiples of 2^-24, float32."""
    steps = torch.arange(1, count + 1, device=keys.device) * _GAMMA
    bits = _mix(keys.unsqueeze(-1) + steps)
    return _shift(bits, 64 - FRACTION_BITS).float() * 2.0**-FRACTION_BITS


def normal_samples(keys: Int64[Tensor, "*batch"], count: int) -> Float[Tensor, "*batch count"]:
    """``count`` independent numbers ~ N(0, 1) per key, float32 (Box and Muller 1958)."""
    radius, angle = uniform_samples(keys, 2 * count).chunk(2, dim=-1)
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def _mix(values: Tensor) -> Tensor:
    values = (values ^ _shift(values, 30)) * _FIRST
    values = (values ^ _shift(values, 27)) * _SECOND
    return values ^ _shift(values, 31)


def _shift(values: Tensor, bits: int) -> Tensor:
    """To the right, filled with zeros: torch's own shift repeats the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
