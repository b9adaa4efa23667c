"""``.splat``, the format of antimatter15's viewer: 32 bytes for each splat and nothing else.

Per splat: position 3 x float32, standard deviations 3 x float32, sRGB and opacity 4 x uint8, quaternion (w x y z)
4 x uint8 as 128 q + 128. There is no header, so what is no multiple of 32 bytes, or holds numbers that no splat
has, is refused, and so are files that begin as another format does.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cgsgan.export.atomic import atomic_path
from cgsgan.export.axes import check_axes
from cgsgan.export.packing import to_levels
from cgsgan.export.scene import DEFAULTS, ExportOptions, RawSplats, SplatFileError, believe, prepare_scene, read_bytes
from cgsgan.types import Gaussians

AXES = "opencv"
"""The format names none; its viewers show captures with y down upright."""
ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])
OTHER_FORMATS = {b"ply\n": ".ply", b"ply\r": ".ply", b"glTF": ".glb", b"PK\x03\x04": ".sog", b"NGSP": ".spz"}


def write_splat(path: str | os.PathLike[str], gaussians: Gaussians, options: ExportOptions = DEFAULTS) -> int:
    """Write one scene, atomically, the splats that matter most (volume times opacity) first, as viewers like it.

    Colours above 1 are cut off, opacities have 8 bits, components of a unit quaternion are off by up to 1/128.

    Args:
        path: the file; missing folders are created.
        gaussians: one scene without a batch axis, RGB, in this library's world.
        options: how; axes ``opencv`` unless they say otherwise.

    Returns:
        The number of splats written.

    Raises:
        ValueError: as :func:`cgsgan.export.scene.prepare_scene`.
    """
    scene, _ = prepare_scene(gaussians, options, axes=AXES, writer="write_splat")
    order = importance_order(scene)
    scene = scene.map(lambda tensor: tensor[order.copy()])
    rows = np.empty(scene.count, ROW)
    rows["means"] = scene.means
    rows["scales"] = scene.scales
    rows["rgba"][:, :3] = to_levels(scene.colors.numpy(), 255)
    rows["rgba"][:, 3] = to_levels(scene.opacities.numpy(), 255)
    rows["quats"] = np.clip(np.rint(scene.quats.numpy() * 128 + 128), 0, 255)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(rows.data)
    return scene.count


def read_splat(path: str | os.PathLike[str], *, axes: str = AXES) -> Gaussians:
    """Read a ``.splat`` file.

    Args:
        path: the file.
        axes: its frame.

    Returns:
        One scene on the CPU, float32, in this library's world, in the order of the file.

    Raises:
        SplatFileError: no multiple of 32 bytes, another format, NaN or Inf, a negative scale, a zero quaternion.
        OSError: when the file cannot be opened.
    """
    check_axes(axes)
    path = Path(path)
    data = read_bytes(path, smallest=ROW.itemsize, kind="a .splat")
    if data[:4] in OTHER_FORMATS:
        raise SplatFileError(f"{path}: expected a .splat, which has no header; this is a {OTHER_FORMATS[data[:4]]}")
    if len(data) % ROW.itemsize:
        raise SplatFileError(
            f"{path}: expected a multiple of {ROW.itemsize} bytes (one splat each), the file has {len(data)}"
        )
    rows = np.frombuffer(data, ROW)
    raw = RawSplats(
        means=rows["means"],
        quats=(rows["quats"].astype(np.float64) - 128) / 128,
        scales=rows["scales"],
        opacities=rows["rgba"][:, 3] / 255,
        colors=rows["rgba"][:, :3] / 255,
    )
    return believe(path, raw, axes=axes)


def importance_order(scene: Gaussians) -> np.ndarray:
    """Indices by falling volume times opacity; equal ones keep their order."""
    return np.argsort(-(scene.scales.prod(dim=-1) * scene.opacities).numpy(), kind="stable")
