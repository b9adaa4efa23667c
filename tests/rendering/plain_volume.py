"""Volume rendering of tri-planes as the papers write it: one ray, one sample, one plane at a time, plain numbers.

Nothing here comes from the package; a comparison with it is a comparison with the formulas.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

AXES = {"official": ("xy", "xz", "zx"), "corrected": ("xy", "xz", "zy")}
MASK = (1 << 64) - 1


def splitmix_mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def uniform(seed: int, stream: int, pixel: int, sample: int) -> float:
    gamma = 0x9E3779B97F4A7C15
    key = splitmix_mix((splitmix_mix(seed & MASK) + (stream + 1) * gamma) & MASK)
    key = splitmix_mix((key + (pixel + 1) * gamma) & MASK)
    return (splitmix_mix((key + (sample + 1) * gamma) & MASK) >> 40) / 2**24


def read_plane(plane: Tensor, column_place: float, row_place: float) -> Tensor:
    """Bilinear in [-1, 1], zero outside, pixel areas from edge to edge."""
    channels, height, width = plane.shape
    x, y = ((column_place + 1) * width - 1) / 2, ((row_place + 1) * height - 1) / 2
    total = plane.new_zeros(channels)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total = total + plane[:, row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def look(planes: Tensor, decode, point: list[float], axes: str, box: float) -> tuple[Tensor, Tensor]:
    places = dict(zip("xyz", (2 * value / box for value in point)))
    features = sum(read_plane(planes[p], places[a[0]], places[a[1]]) for p, a in enumerate(AXES[axes])) / 3
    raw, colors = decode(features[None])
    return raw[0, 0], colors[0]


def pixel_ray(c2w: Tensor, K: Tensor, column: int, row: int, size: int) -> tuple[list[float], list[float], float]:
    """Origin, unit direction and z per distance."""
    u, v = (column + 0.5) / size, (row + 0.5) / size
    fx, skew, cx, fy, cy = (float(K[i, j]) for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2)))
    camera = [(u - cx + cy * skew / fy - skew * v / fy) / fx, (v - cy) / fy, 1.0]
    length = math.sqrt(sum(value * value for value in camera))
    direction = [sum(float(c2w[i, j]) * camera[j] for j in range(3)) / length for i in range(3)]
    return [float(c2w[i, 3]) for i in range(3)], direction, 1 / length


def march(samples: list[tuple[float, Tensor, Tensor]]) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Samples (distance, raw density, colours), ascending, to weights, colours, coverage and mean distance."""
    weights, passed, color, distance = [], 1.0, 0.0, 0.0
    for (t0, s0, c0), (t1, s1, c1) in pairwise(samples):
        density = torch.log1p(torch.exp((s0 + s1) / 2 - 1))
        alpha = 1 - torch.exp(-density * (t1 - t0))
        weights.append(alpha * passed)
        passed = passed * (1 - alpha + 1e-10)
        color = color + weights[-1] * (c0 + c1) / 2
        distance = distance + weights[-1] * (t0 + t1) / 2
    total = torch.stack(weights).sum()
    return weights, torch.as_tensor(color), total, distance / total


def second_pass(distances: list[float], weights: list[float], places: list[float]) -> list[float]:
    """Where the inverse of the cumulative distribution of the smoothed weights is at ``places``."""
    padded = [-math.inf, *weights, -math.inf]
    maxima = [max(a, b) for a, b in pairwise(padded)]
    smooth = [(a + b) / 2 + 0.01 for a, b in pairwise(maxima)]
    middles = [(a + b) / 2 for a, b in pairwise(distances)]
    inner = [value + 1e-5 for value in smooth[1:-1]]
    cumulative = [0.0]
    for value in inner:
        cumulative.append(cumulative[-1] + value / sum(inner))
    found = []
    for place in places:
        right = sum(value <= place for value in cumulative)  # the first that is greater
        below, above = max(right - 1, 0), min(right, len(inner))
        step = cumulative[above] - cumulative[below]
        step = 1.0 if step < 1e-5 else step
        found.append(middles[below] + (place - cumulative[below]) / step * (middles[above] - middles[below]))
    return found


def render_pixel(planes: Tensor, decode, ray, config, *, seed: int | None, pixel: int):
    """Colours, coverage, mean distance, and all sampled distances of one ray."""
    origin, direction, _ = ray
    first, second = config.samples, config.importance_samples
    spacing = (config.far - config.near) / (first - 1)

    def at(distance: float) -> tuple[float, Tensor, Tensor]:
        point = [o + distance * d for o, d in zip(origin, direction)]
        return distance, *look(planes, decode, point, config.plane_axes, config.box_warp)

    jitter = [0.5 if seed is None else uniform(seed, 0, pixel, i) for i in range(first)]
    coarse = [at(config.near + (i + jitter[i]) * spacing) for i in range(first)]
    weights, color, alpha, distance = march(coarse)
    samples = coarse
    if second:
        places = [i / (second - 1) if seed is None else uniform(seed, 1, pixel, i) for i in range(second)]
        fine = second_pass([s[0] for s in coarse], [float(w.detach()) for w in weights], places)
        samples = sorted([*coarse, *(at(distance) for distance in fine)], key=lambda sample: sample[0])
        _, color, alpha, distance = march(samples)
    return color, alpha, distance, [sample[0] for sample in samples]
