"""SPZ (Niantic): about 20 bytes for each splat before compression, about 15 after.

Planar streams: positions as 24-bit fixed point, opacity in 8 bits, colour as 0.15 f_dc + 0.5 in 8 bits, ln(standard
deviation) in 8 bits of 1/16 from -10, rotations, harmonics. Rotations are the three smaller components in 10 bits
each (versions 3 and 4) or x, y, z in 8 bits (version 2). The format prescribes its axes: right, up, back.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from cgsgan.export.atomic import atomic_path
from cgsgan.export.axes import check_axes
from cgsgan.export.packing import join_largest, split_largest, to_levels
from cgsgan.export.scene import (
    DEFAULTS,
    ExportOptions,
    RawSplats,
    believe,
    color_to_dc,
    dc_to_color,
    prepare_scene,
    warn_dropped_color,
)
from cgsgan.export.spz_container import SpzHeader, pack_streams, unpack_streams
from cgsgan.types import Gaussians

AXES = "opengl"
VERSIONS = (2, 3, 4)
FRACTIONAL_BITS = 12
"""As everybody writes: positions within +-2048 in steps of 1/4096."""
LOWEST_LOG_SCALE, LOG_SCALE_STEPS = -10.0, 16
COLOR_SCALE = 0.15
MAGNITUDE = 511
"""Nine bits for the size of a quaternion's component, up to sqrt(1/2), and one for its sign."""
XYZW = np.array([1, 2, 3, 0])
WXYZ = np.array([3, 0, 1, 2])


def write_spz(path: str | os.PathLike[str], gaussians: Gaussians, options: ExportOptions = DEFAULTS) -> int:
    """Write one scene, atomically, in the order it has.

    Colours outside [-0.44, 1.44] and standard deviations outside [4.5e-5, 380] go to the nearest end.

    Args:
        path: the file; missing folders are created.
        gaussians: one scene without a batch axis, RGB, in this library's world.
        options: how; axes ``opengl``, which the format prescribes, unless they say otherwise.

    Returns:
        The number of splats written.

    Raises:
        ValueError: as :func:`cgsgan.export.scene.prepare_scene`; for another version, a position beyond 2048, or
            version 4 without the package zstandard.
    """
    if options.spz_version not in VERSIONS:
        raise ValueError(f"write_spz: spz_version must be 2, 3 or 4, got {options.spz_version}")
    scene, _ = prepare_scene(gaussians, options, axes=AXES, writer="write_spz")
    limit = (1 << 23) - 1
    positions = np.rint(scene.means.numpy() * (1 << FRACTIONAL_BITS))
    if np.abs(positions).max() > limit:
        farthest = np.abs(scene.means.numpy()).max()
        raise ValueError(f"write_spz: positions must be within +-{(limit + 1) >> FRACTIONAL_BITS}, got {farthest:.6g}")
    scales = (np.log(scene.scales.numpy()) - LOWEST_LOG_SCALE) * LOG_SCALE_STEPS / 255
    quats = scene.quats.numpy()[:, XYZW]
    streams = (
        positions.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(),
        to_levels(scene.opacities.numpy(), 255).astype(np.uint8).tobytes(),
        to_levels(color_to_dc(scene.colors.numpy()) * COLOR_SCALE + 0.5, 255).astype(np.uint8).tobytes(),
        to_levels(scales, 255).astype(np.uint8).tobytes(),
        _pack_xyz(quats) if options.spz_version == 2 else _pack_smallest(quats),
    )
    header = SpzHeader(version=options.spz_version, count=scene.count, degree=0, fractional_bits=FRACTIONAL_BITS)
    data = pack_streams(header, streams)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return scene.count


def read_spz(path: str | os.PathLike[str], *, axes: str = AXES) -> Gaussians:
    """Read an SPZ file of version 2, 3 or 4; harmonics above degree 0 are dropped with a warning.

    Records of vendors are passed over with a warning: one of them may name other axes.

    Args:
        path: the file.
        axes: its frame.

    Returns:
        One scene on the CPU, float32, in this library's world, in the order of the file.

    Raises:
        SplatFileError: no SPZ, another version, damaged, or a decompression bomb.
        ValueError: version 4 without the package zstandard.
        OSError: when the file cannot be opened.
    """
    check_axes(axes)
    path = Path(path)
    header, streams = unpack_streams(path)
    if header.degree:
        warn_dropped_color(path, header.degree)
    if header.extended:
        warnings.warn(f"{path}: records of vendors are passed over; if one names other axes, say so", stacklevel=2)
    positions, opacities, colors, scales, rotations = (np.frombuffer(stream, np.uint8) for stream in streams[:5])
    rotations = rotations.reshape(header.count, -1)
    words = np.zeros((header.count * 3, 4), np.uint8)
    words[:, 1:] = positions.reshape(-1, 3)  # in the upper three bytes, so that the shift back carries the sign
    raw = RawSplats(
        means=(words.view("<i4").reshape(-1, 3) >> 8) / float(1 << header.fractional_bits),
        quats=(_unpack_xyz(rotations) if header.version == 2 else _unpack_smallest(rotations))[:, WXYZ],
        scales=np.exp(scales.reshape(-1, 3) / LOG_SCALE_STEPS + LOWEST_LOG_SCALE),
        opacities=opacities / 255,
        colors=dc_to_color((colors.reshape(-1, 3) / 255 - 0.5) / COLOR_SCALE),
    )
    return believe(path, raw, axes=axes)


def _pack_xyz(quats: np.ndarray) -> bytes:
    signs = np.where(quats[:, 3:] < 0, -1, 1)
    return np.rint(quats[:, :3] * signs * 127.5 + 127.5).astype(np.uint8).tobytes()


def _unpack_xyz(rotations: np.ndarray) -> np.ndarray:
    return join_largest(np.full(len(rotations), 3), rotations / 127.5 - 1)


def _pack_smallest(quats: np.ndarray) -> bytes:
    largest, others = split_largest(quats)
    words = to_levels(np.abs(others) * 2**0.5, MAGNITUDE) | (others < 0).astype(np.int64) << 9
    return (largest << 30 | words[:, 0] << 20 | words[:, 1] << 10 | words[:, 2]).astype("<u4").tobytes()


def _unpack_smallest(rotations: np.ndarray) -> np.ndarray:
    words = np.ascontiguousarray(rotations).view("<u4")[:, 0]
    fields = np.stack([words >> 20, words >> 10, words], axis=1) & 1023
    others = (fields & MAGNITUDE) / MAGNITUDE * 0.5**0.5 * np.where(fields >> 9, -1, 1)
    return join_largest(words >> 30, others)
