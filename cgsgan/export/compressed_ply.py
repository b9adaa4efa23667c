"""PlayCanvas's compressed PLY: 16 bytes for each splat, in chunks of 256 that share their bounds.

Element ``chunk``: bounds of position, of ln(standard deviation) and of colour, 18 x float32. Element ``vertex``,
4 x uint32: position 11-10-11 bits within the bounds; quaternion (w x y z) as the index of its largest component
(2 bits) and the three others (10 bits each, v sqrt(1/2) + 1/2); scale 11-10-11; colour and opacity 8-8-8-8. An
element ``sh`` may follow. Older files have no bounds of colour: [0, 1] is meant.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cgsgan.export.atomic import atomic_path
from cgsgan.export.axes import check_axes
from cgsgan.export.packing import join_largest, morton_order, split_largest, to_levels
from cgsgan.export.ply_header import AXES_COMMENT, PlyError, PlyTable, read_tables
from cgsgan.export.scene import DEFAULTS, ExportOptions, RawSplats, believe, prepare_scene, warn_dropped_color
from cgsgan.types import Gaussians

AXES = "opencv"
CHUNK = 256
"""Splats that share bounds."""
BOUNDS = tuple(
    f"{side}_{part}{axis}"
    for part, axes in (("", "xyz"), ("scale_", "xyz"), ("", "rgb"))
    for side in ("min", "max")
    for axis in axes
)
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
LOG_SCALE_LIMIT = 20.0
"""Logarithms of standard deviations are kept within +-20, as readers and writers of the format do."""
SH_DEGREES = {9: 1, 24: 2, 45: 3}


def write_compressed_ply(path: str | os.PathLike[str], gaussians: Gaussians, options: ExportOptions = DEFAULTS) -> int:
    """Write one scene, atomically, along a space-filling curve so that the bounds of chunks are tight.

    Args:
        path: the file; missing folders are created.
        gaussians: one scene without a batch axis, RGB, in this library's world.
        options: how; axes ``opencv`` unless they say otherwise.

    Returns:
        The number of splats written.

    Raises:
        ValueError: as :func:`cgsgan.export.scene.prepare_scene`.
    """
    scene, _ = prepare_scene(gaussians, options, axes=AXES, writer="write_compressed_ply")
    order = morton_order(scene.means.numpy())
    chunks = -(-scene.count // CHUNK)
    # The last chunk is filled up with its last splat, which does not change its bounds.
    padded = order[np.minimum(np.arange(chunks * CHUNK), scene.count - 1)]
    scales = np.clip(np.log(scene.scales.numpy()), -LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)
    means, means_bounds = _normalize(scene.means.numpy()[padded], chunks)
    scales, scales_bounds = _normalize(scales[padded], chunks)
    colors, colors_bounds = _normalize(scene.colors.numpy()[padded], chunks)
    rgba = np.concatenate([colors, scene.opacities.numpy()[padded, None]], axis=1)
    packed = np.stack([_pack_vector(means), _pack_quats(scene.quats.numpy()[padded]), _pack_vector(scales)], axis=1)
    packed = np.concatenate([packed, to_levels(rgba, 255) @ (1 << np.array([24, 16, 8, 0]))[:, None]], axis=1)
    header = ["ply", "format binary_little_endian 1.0", f"comment {AXES_COMMENT}{options.axes or AXES}"]
    header += [f"element chunk {chunks}", *(f"property float {name}" for name in BOUNDS)]
    header += [f"element vertex {scene.count}", *(f"property uint {name}" for name in PACKED), "end_header", ""]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(np.concatenate([means_bounds, scales_bounds, colors_bounds], axis=1).astype("<f4").tobytes())
        file.write(packed[: scene.count].astype("<u4").tobytes())
    return scene.count


def read_compressed_ply(path: str | os.PathLike[str], *, axes: str = AXES) -> Gaussians:
    """Read a compressed PLY; spherical harmonics above degree 0 are dropped with a warning.

    Args:
        path: the file.
        axes: its frame.

    Returns:
        One scene on the CPU, float32, in this library's world, in the order of the file.

    Raises:
        PlyError: no such PLY, a header that does not fit the file, NaN or Inf.
        OSError: when the file cannot be opened.
    """
    check_axes(axes)
    path = Path(path)
    tables = read_tables(path)
    _check_tables(path, tables)
    vertices, bounds = tables["vertex"].read(path), tables["chunk"].read(path)
    if "sh" in tables:
        warn_dropped_color(path, SH_DEGREES[len(tables["sh"].dtype.names or ())])
    rows = np.arange(len(vertices)) // CHUNK
    colors = _unpack_bytes(vertices["packed_color"])
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are found by believe
        raw = RawSplats(
            means=_within(bounds, rows, ("x", "y", "z"), _unpack_vector(vertices["packed_position"])),
            quats=_unpack_quats(vertices["packed_rotation"]),
            scales=np.exp(
                _within(bounds, rows, ("scale_x", "scale_y", "scale_z"), _unpack_vector(vertices["packed_scale"]))
            ),
            opacities=colors[:, 3],
            colors=_within(bounds, rows, "rgb", colors[:, :3]) if "min_r" in tables["chunk"].names else colors[:, :3],
        )
    return believe(path, raw, axes=axes)


def _normalize(values: np.ndarray, chunks: int) -> tuple[np.ndarray, np.ndarray]:
    """[chunks * 256, 3] to [0, 1] within each chunk, and the bounds [chunks, 6] as the file will hold them."""
    grouped = values.reshape(chunks, CHUNK, 3)
    low = np.nextafter(grouped.min(axis=1).astype(np.float32), np.float32(-np.inf))
    high = np.nextafter(grouped.max(axis=1).astype(np.float32), np.float32(np.inf))
    bounds = np.concatenate([low, high], axis=1)
    low, high = low.astype(np.float64)[:, None], high.astype(np.float64)[:, None]
    return ((grouped - low) / (high - low)).reshape(-1, 3), bounds


def _pack_vector(values: np.ndarray) -> np.ndarray:
    x, y, z = to_levels(values[:, 0], 2047), to_levels(values[:, 1], 1023), to_levels(values[:, 2], 2047)
    return x << 21 | y << 11 | z


def _unpack_vector(packed: np.ndarray) -> np.ndarray:
    return np.stack([(packed >> 21) / 2047, (packed >> 11 & 1023) / 1023, (packed & 2047) / 2047], axis=1)


def _pack_quats(quats: np.ndarray) -> np.ndarray:
    largest, others = split_largest(quats)
    a, b, c = to_levels(others * 0.5**0.5 + 0.5, 1023).T
    return largest << 30 | a << 20 | b << 10 | c


def _unpack_quats(packed: np.ndarray) -> np.ndarray:
    others = np.stack([packed >> 20 & 1023, packed >> 10 & 1023, packed & 1023], axis=1) / 1023
    return join_largest(packed >> 30, (others - 0.5) * 2**0.5)


def _unpack_bytes(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed >> shift & 255 for shift in (24, 16, 8, 0)], axis=1) / 255


def _within(bounds: np.ndarray, rows: np.ndarray, names: tuple[str, ...] | str, values: np.ndarray) -> np.ndarray:
    low = np.stack([bounds[f"min_{name}"] for name in names], axis=1).astype(np.float64)[rows]
    high = np.stack([bounds[f"max_{name}"] for name in names], axis=1).astype(np.float64)[rows]
    return low * (1 - values) + high * values


def _check_tables(path: Path, tables: dict[str, PlyTable]) -> None:
    if "chunk" not in tables or "vertex" not in tables:
        raise PlyError(f"{path}: expected a compressed PLY, elements chunk and vertex, got {list(tables)[:8]}")
    chunk, vertex = tables["chunk"], tables["vertex"]
    required = BOUNDS if "min_r" in chunk.names else BOUNDS[:12]
    for table, names, kind in ((chunk, required, "f"), (vertex, PACKED, "u")):
        missing = [name for name in names if name not in table.names]
        if missing:
            raise PlyError(f"{path}: expected the properties of a compressed PLY, missing {', '.join(missing)}")
        wrong = [name for name in names if table.dtype[name] != np.dtype(f"<{kind}4")]
        if wrong:
            raise PlyError(f"{path}: expected {kind}4 for {wrong[0]}, got {table.dtype[wrong[0]]}")
    if vertex.count == 0 or chunk.count != -(-vertex.count // CHUNK):
        raise PlyError(
            f"{path}: expected at least one splat and a chunk for every {CHUNK}, "
            f"got {vertex.count} splats and {chunk.count} chunks"
        )
    if "sh" in tables and (tables["sh"].count != vertex.count or len(tables["sh"].names) not in SH_DEGREES):
        raise PlyError(f"{path}: expected element sh with 9, 24 or 45 properties for each of {vertex.count} splats")
