"""Numbers in few bits: rotations without their largest component, order along a space-filling curve."""

from __future__ import annotations

import numpy as np

OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""Row i: the components of a quaternion that are not i."""
MORTON_BITS = 21
"""Per axis; three of them fit into 63 bits."""


def split_largest(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A unit quaternion as the index of its largest component and the three others.

    Args:
        quats: [N, 4], unit length, in the component order of the format.

    Returns:
        Index [N] of the component with the largest magnitude, which is to be taken as positive, and the others
        [N, 3] in their order, within [-sqrt(1/2), sqrt(1/2)].
    """
    rows = np.arange(len(quats))
    largest = np.abs(quats).argmax(axis=1)
    signs = np.where(quats[rows, largest] < 0, -1.0, 1.0)
    return largest, quats[rows[:, None], OTHERS[largest]] * signs[:, None]


def join_largest(largest: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The inverse of :func:`split_largest`: [N] indices and [N, 3] components to [N, 4] quaternions.

    Components that rounding (or damage) made longer than a unit quaternion get 0 as their largest.
    """
    quats = np.empty((len(largest), 4))
    rows = np.arange(len(largest))
    quats[rows[:, None], OTHERS[largest]] = others
    quats[rows, largest] = np.sqrt(np.maximum(0, 1 - (others**2).sum(axis=1)))
    return quats


def to_levels(values: np.ndarray, levels: int) -> np.ndarray:
    """[0, 1] to the nearest of 0..``levels`` (what is outside goes to the ends), int64."""
    return np.clip(np.rint(values * levels), 0, levels).astype(np.int64)


def morton_order(means: np.ndarray) -> np.ndarray:
    """Indices that sort [N, 3] points along a Z-order curve, so that neighbours in a file are neighbours in space."""
    low = means.min(axis=0)
    extent = np.maximum(means.max(axis=0) - low, np.finfo(np.float64).tiny)
    cells = to_levels((means - low) / extent, (1 << MORTON_BITS) - 1).astype(np.uint64)
    codes = _spread(cells[:, 0]) | _spread(cells[:, 1]) << np.uint64(1) | _spread(cells[:, 2]) << np.uint64(2)
    return np.argsort(codes, kind="stable")


def _spread(cells: np.ndarray) -> np.ndarray:
    """Put two zero bits between all bits of 21-bit numbers, by halving distances (Warren, Hacker's Delight, 7-2)."""
    for shift, mask in (
        (32, 0x001F00000000FFFF),
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        cells = (cells | cells << np.uint64(shift)) & np.uint64(mask)
    return cells
