"""SOG version 2 (PlayCanvas): a zip of lossless WebP pictures, one pixel for each splat; about 8 bytes each.

``means_l`` and ``means_u``: low and high byte of sign(x) ln(1 + |x|) in 16 bits between bounds. ``quats``: the three
smaller components in 8 bits, and 252 + the index of the largest. ``scales`` and ``sh0``: indices into 256 values of
ln(standard deviation) and of f_dc, and the opacity in 8 bits. ``meta.json`` holds bounds, values and file names.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from cgsgan.export.atomic import atomic_path
from cgsgan.export.axes import check_axes
from cgsgan.export.packing import morton_order, split_largest, to_levels
from cgsgan.export.scene import DEFAULTS, ExportOptions, believe, color_to_dc, prepare_scene
from cgsgan.export.sog_reader import LARGEST_TAG, POSITION_LEVELS, read_textures
from cgsgan.types import Gaussians

AXES = "opencv"
"""The specification says y up, but its tools write and show the axes of the PLY that they were given."""
CODES = 256
LLOYD_STEPS = 12
WEBP_EFFORT = {"quality": 50, "method": 2}
"""Lossless whatever it is; more saves nothing on such pictures (the most: the same size in 130 times the time)."""
MADE = (1980, 1, 1, 0, 0, 0)
"""The date of everything in the zip: the same scene gives the same bytes."""


def write_sog(path: str | os.PathLike[str], gaussians: Gaussians, options: ExportOptions = DEFAULTS) -> int:
    """Write one scene, atomically, along a space-filling curve so that neighbouring pixels are alike.

    Args:
        path: the file; missing folders are created.
        gaussians: one scene without a batch axis, RGB, in this library's world.
        options: how; axes ``opencv`` unless they say otherwise.

    Returns:
        The number of splats written.

    Raises:
        ValueError: as :func:`cgsgan.export.scene.prepare_scene`.
    """
    scene, _ = prepare_scene(gaussians, options, axes=AXES, writer="write_sog")
    order = morton_order(scene.means.numpy())
    scene = scene.map(lambda tensor: tensor[order.copy()])
    means = scene.means.numpy()
    means = np.sign(means) * np.log1p(np.abs(means))
    low, high = means.min(axis=0), means.max(axis=0)
    levels = to_levels((means - low) / np.where(high > low, high - low, 1), POSITION_LEVELS)
    largest, others = split_largest(scene.quats.numpy())
    scale_codes, scale_labels = make_codebook(np.log(scene.scales.numpy()))
    color_codes, color_labels = make_codebook(color_to_dc(scene.colors.numpy()))
    opacities = to_levels(scene.opacities.numpy(), 255)[:, None]
    quats = to_levels(others * 0.5**0.5 + 0.5, 255)
    pictures = {
        "means_l": levels & 255,
        "means_u": levels >> 8,
        "quats": np.concatenate([quats, largest[:, None] + LARGEST_TAG], axis=1),
        "scales": scale_labels,
        "sh0": np.concatenate([color_labels, opacities], axis=1),
    }
    meta = {
        "version": 2,
        "asset": {"generator": "cgsgan"},
        "count": scene.count,
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": _short(scale_codes), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": _short(color_codes), "files": ["sh0.webp"]},
    }
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:  # WebP does not shrink further
        for name, values in pictures.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.webp", MADE), _webp(values))
        archive.writestr(zipfile.ZipInfo("meta.json", MADE), json.dumps(meta))
    return scene.count


def read_sog(path: str | os.PathLike[str], *, axes: str = AXES) -> Gaussians:
    """Read a SOG file (the zip, not the loose pictures); harmonics above degree 0 are dropped with a warning.

    Args:
        path: the file.
        axes: its frame.

    Returns:
        One scene on the CPU, float32, in this library's world, in the order of the file.

    Raises:
        SplatFileError: no SOG of version 2, damaged, or a decompression bomb.
        OSError: when the file cannot be opened.
    """
    check_axes(axes)
    path = Path(path)
    return believe(path, read_textures(path), axes=axes)


def make_codebook(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """256 values that stand for all, and the nearest of them for each.

    Half of them are spread evenly over the range, so that nothing is off by more than 1/254 of it; the others
    go where most values are (Lloyd 1982, on sorted values, for which a step costs next to nothing).

    Args:
        values: any shape.

    Returns:
        The values [256], rising; and the indices, uint8, in the shape of ``values``.
    """
    ordered = np.sort(values, axis=None)
    totals = np.concatenate([[0.0], np.cumsum(ordered)])
    even = np.linspace(ordered[0], ordered[-1], CODES // 2)
    moving = ordered[np.linspace(0, len(ordered) - 1, CODES - len(even)).astype(np.int64)]
    for _ in range(LLOYD_STEPS):
        codes = np.concatenate([even, moving])
        rank = np.argsort(codes, kind="stable")
        edges = np.searchsorted(ordered, (codes[rank][1:] + codes[rank][:-1]) / 2)
        first, last = np.concatenate([[0], edges]), np.concatenate([edges, [len(ordered)]])
        counts = last - first
        middles = np.where(counts > 0, (totals[last] - totals[first]) / np.maximum(counts, 1), codes[rank])
        codes[rank] = middles
        moving = codes[len(even) :]
    codes = np.sort(np.concatenate([even, moving]))
    return codes, np.searchsorted((codes[1:] + codes[:-1]) / 2, values).astype(np.uint8)


def _short(codes: np.ndarray) -> list[float]:
    """Seven digits, as float32 holds: a small head's codebooks are a tenth of its file otherwise."""
    return [float(f"{code:.7g}") for code in codes]


def _webp(values: np.ndarray) -> bytes:
    """[N, 3] or [N, 4] bytes as a picture of about as many rows as columns, both multiples of four."""
    width = -(-math.isqrt(len(values)) // 4) * 4
    height = -(-len(values) // width // 4) * 4
    pixels = np.zeros((height * width, values.shape[1]), np.uint8)
    pixels[: len(values)] = values
    picture = Image.fromarray(pixels.reshape(height, width, -1))
    out = io.BytesIO()
    picture.save(out, format="WEBP", lossless=True, exact=True, **WEBP_EFFORT)  # exact: also where opacity is 0
    return out.getvalue()
