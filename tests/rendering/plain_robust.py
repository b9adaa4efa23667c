"""Rendering of signed distance with few samples as the papers write it: one ray, one number at a time.

Nothing here comes from the package; a comparison with it is a comparison with the formulas.
"""

from __future__ import annotations

import math
from itertools import pairwise


def laplace_density(s: float, beta: float) -> float:
    """VolSDF, equations 2 and 3, with alpha = 1 / beta."""
    x = -s
    cumulative = 0.5 * math.exp(x / beta) if x <= 0 else 1 - 0.5 * math.exp(-x / beta)
    return cumulative / beta


def nucleus(probabilities: list[float], mass: float) -> set[int]:
    total = sum(probabilities)
    if total == 0:
        probabilities, total = [1.0] * len(probabilities), float(len(probabilities))
    order = sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i))
    held, kept = 0.0, set()
    for number in order:
        kept.add(number)
        held += probabilities[number] / total
        if held >= mass:
            break
    return kept


def invert(probabilities: list[float], place: float) -> float:
    """Where the cumulative distribution reaches a place, in bins."""
    total, below = sum(probabilities), 0.0
    for number, probability in enumerate(probabilities):
        if probability > 0 and place * total < below + probability:
            return number + (place * total - below) / probability
        below += probability
    return 1.0 + max(i for i, p in enumerate(probabilities) if p > 0)


def cells(kept: set[int], positions: list[float]) -> list[float]:
    """What part of the joined bins is nearest to each position."""
    joined = []
    for position in positions:
        number = math.floor(position)
        joined.append(sum(k < number for k in kept) + (position - number if number in kept else 0.0))
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(joined)), float(len(kept))]
    return [b - a for a, b in pairwise(edges)]


def composite(samples: list[tuple[float, float, list[float], float]]) -> tuple[list[float], float, float, float]:
    """Samples (density, length, colour, distance), near to far, to colour, coverage, mean distance and what passes."""
    passed, color, distance, alpha = 1.0, [0.0] * len(samples[0][2]), 0.0, 0.0
    for density, length, rgb, place in samples:
        weight = passed * (1 - math.exp(-density * length))
        passed *= math.exp(-density * length)
        color = [c + weight * v for c, v in zip(color, rgb)]
        distance += weight * place
        alpha += weight
    return color, alpha, distance / alpha, passed
