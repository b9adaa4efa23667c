"""Gaussian-splat PLY, the format every viewer opens (Kerbl et al. 2023): written and read with numpy alone.

A file holds, per splat, little-endian float32: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (channel-major:
all red coefficients first), opacity (logit), scale_0..2 (natural logarithm), rot_0..3 (w x y z). Colour is
0.5 + C0 f_dc, read by viewers as display-referred sRGB. Which way is up is not part of the format; see
:mod:`cgsgan.export.axes`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.export.atomic import atomic_path
from cgsgan.export.axes import check_axes, half_turn_x_sh
from cgsgan.export.ply_header import AXES_COMMENT, PlyError, PlyTable, read_vertex_table, stated_axes
from cgsgan.export.scene import (
    PRUNE_OPACITY,
    ExportOptions,
    RawSplats,
    ViewDependentColorWarning,
    believe,
    check_scene,
    color_to_dc,
    dc_to_color,
    finish_scene,
    warn_dropped_color,
)
from cgsgan.types import Gaussians

AXES = "opencv"
"""The format names none; SuperSplat and Babylon show this one upright."""
SH_DEGREES = {0: 0, 9: 1, 24: 2, 45: 3}
"""Number of f_rest properties -> degree of the spherical harmonics."""
BLOCK = 1 << 14
"""Splats that are converted at once."""
POSITION, DC, SCALE, ROTATION = (
    ("x", "y", "z"),
    ("f_dc_0", "f_dc_1", "f_dc_2"),
    ("scale_0", "scale_1", "scale_2"),
    ("rot_0", "rot_1", "rot_2", "rot_3"),
)


def write_ply(
    path: str | os.PathLike[str],
    gaussians: Gaussians,
    *,
    axes: str = "opencv",
    prune: float | int = PRUNE_OPACITY,
    extra_dilation: float | int = 0.0,
    sh_rest: Float[Tensor, "gaussian coefficient 3"] | None = None,
) -> int:
    """Write one scene, atomically.

    Args:
        path: the file; missing folders are created.
        gaussians: one scene without a batch axis, RGB, in this library's world (+y up, face along +z).
        axes: ``opencv`` turns the scene by 180 degrees about X (y down, face along -z), as SuperSplat and
            Babylon expect; ``opengl`` writes it as it is, for viewers that show file axes (three.js, viser).
        prune: splats with an opacity below this are left out; 0 keeps all.
        extra_dilation: world units, added in quadrature to every standard deviation. Bakes in the pixel
            dilation of the renderer a generator was trained with, which other viewers do not apply.
        sh_rest: spherical harmonics without the constant one, 3, 8 or 15 coefficients per channel.

    Returns:
        The number of splats written.

    Raises:
        ValueError: for a batch, other than three colour channels, NaN or Inf, a zero quaternion, a negative
            scale, ``axes`` or ``prune`` out of range, or when pruning leaves nothing.
    """
    options = ExportOptions(axes=axes, prune=prune, extra_dilation=extra_dilation)
    keep = check_scene(gaussians, options, writer="write_ply")
    if sh_rest is not None:
        _check_sh(sh_rest, count=gaussians.count)
    names = _names(0 if sh_rest is None else 3 * sh_rest.shape[1])
    count = int(keep.sum())
    header = ["ply", "format binary_little_endian 1.0", f"comment {AXES_COMMENT}{axes}"]
    header += [f"element vertex {count}", *(f"property float {name}" for name in names), "end_header", ""]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        # In blocks that stay in the cache: whole columns in float64 cost more than the disk.
        kept = gaussians if count == gaussians.count else gaussians.select(keep)
        rest = sh_rest if sh_rest is None or count == gaussians.count else sh_rest[keep.to(sh_rest.device)]
        for start in range(0, count, BLOCK):
            rows = slice(start, start + BLOCK)
            scene = finish_scene(kept.map(lambda tensor, rows=rows: tensor[rows]), options, axes=axes)
            file.write(_rows(scene, None if rest is None else rest[rows], axes).data)
    return count


def read_ply(path: str | os.PathLike[str], *, axes: str = "opencv") -> Gaussians:
    """Read the splats of a PLY written by this library or another 3D Gaussian-splatting tool.

    Properties may come in any order; normals and unknown properties are skipped. Colours are the constant
    part (0.5 + C0 f_dc, negative values raised to 0 as viewers do): **view-dependent colour, spherical
    harmonics of degree 1 to 3, is dropped**; :func:`read_sh_rest` returns it.

    Args:
        path: the file.
        axes: the frame of the file, see :func:`write_ply`; the result is always in this library's world.

    Returns:
        One scene on the CPU, float32, with unit quaternions.

    Raises:
        PlyError: when the file is no such PLY: wrong format, truncated, a property missing, NaN or Inf, a
            zero quaternion, a scale beyond float32.
        OSError: when the file cannot be opened.
    """
    check_axes(axes)
    path = Path(path)
    table = read_vertex_table(path)
    vertices = _read_vertices(path, table)
    degree = SH_DEGREES[len(_rest_names(path, table))]
    if degree:
        warn_dropped_color(path, degree)
    quats = _read_columns(path, vertices, ROTATION)
    if not quats.any(axis=1).all():
        row = int(np.argmin(quats.any(axis=1)))
        raise PlyError(f"{path}: expected quaternions rot_0..3 of non-zero length, vertex {row} has 0 0 0 0")
    with np.errstate(over="ignore"):
        scales = np.exp(_read_columns(path, vertices, SCALE)).astype(np.float32)
        opacities = 1 / (1 + np.exp(-_read_columns(path, vertices, ("opacity",))[:, 0]))
    if not np.isfinite(scales).all():
        raise PlyError(f"{path}: expected scale_0..2 to be logarithms below 88, a larger one gives an infinite splat")
    raw = RawSplats(
        means=_read_columns(path, vertices, POSITION),
        quats=quats,
        scales=scales,
        opacities=opacities,
        colors=dc_to_color(_read_columns(path, vertices, DC)),
    )
    return believe(path, raw, axes=axes)


def read_sh_rest(
    path: str | os.PathLike[str], *, axes: str = "opencv"
) -> Float[Tensor, "gaussian coefficient 3"] | None:
    """The view-dependent part of a PLY's colour: 3, 8 or 15 coefficients per channel, or None at degree 0.

    Args:
        path: the file.
        axes: the frame of the file, see :func:`write_ply`.

    Raises:
        PlyError: as :func:`read_ply`.
    """
    check_axes(axes)
    path = Path(path)
    table = read_vertex_table(path)
    names = _rest_names(path, table)
    if not names:
        return None
    flat = _tensor(_read_columns(path, _read_vertices(path, table), names))
    rest = flat.unflatten(1, (3, -1)).mT.contiguous()
    return half_turn_x_sh(rest) if axes == "opencv" else rest


def describe_ply(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """What a PLY holds, as (label, value) lines for people; bounds are in the axes of the file.

    Raises:
        PlyError: as :func:`read_ply`.
    """
    path = Path(path)
    table = read_vertex_table(path)
    degree = SH_DEGREES[len(_rest_names(path, table))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ViewDependentColorWarning)  # the degree is told below
        scene = read_ply(path, axes="opengl")
    low, high = scene.means.min(dim=0).values.tolist(), scene.means.max(dim=0).values.tolist()
    known = {*POSITION, *DC, *SCALE, *ROTATION, "opacity", "nx", "ny", "nz"}
    extra = [n for n in table.names if n not in known and not n.startswith("f_rest_")]
    stated = stated_axes(table.comments)
    return [
        ("splats", f"{table.count:,}"),
        ("bytes per splat", str(table.dtype.itemsize)),
        ("SH degree", str(degree)),
        *((f"{name} range", f"{a:.4g} .. {b:.4g}") for name, a, b in zip("xyz", low, high)),
        ("opacity 5/50/95 %", quantiles(scene.opacities)),
        ("scale 5/50/95 %", quantiles(scene.scales)),
        ("axes", f"{stated[:20]} (stated by the file)" if stated else "unknown (the format does not say)"),
        ("other properties", ", ".join(extra)[:200] or "none"),
    ]


def _check_sh(sh_rest: Tensor, *, count: int) -> None:
    if sh_rest.shape[0] != count or 3 * sh_rest.shape[1] not in SH_DEGREES:
        raise ValueError(
            f"write_ply: expected sh_rest [{count}, 3 | 8 | 15, 3] (degree 1 to 3), got {list(sh_rest.shape)}"
        )
    if not bool(sh_rest.isfinite().all()):
        raise ValueError("write_ply: sh_rest holds NaN or Inf")


def _names(rest: int) -> list[str]:
    """The properties in the order of the format."""
    between = (f"f_rest_{i}" for i in range(rest))
    return [*POSITION, "nx", "ny", "nz", *DC, *between, "opacity", *SCALE, *ROTATION]


def _rows(scene: Gaussians, sh_rest: Tensor | None, axes: str) -> np.ndarray:
    """Splats as the file holds them, [N, properties]."""
    rest = scene.colors.new_zeros(scene.count, 0)
    if sh_rest is not None:
        turned = half_turn_x_sh(sh_rest) if axes == "opencv" else sh_rest
        rest = turned.detach().to("cpu").mT.flatten(1)
    groups = (
        scene.means,
        scene.means.new_zeros(1, 3).expand(scene.count, 3),
        torch.from_numpy(color_to_dc(scene.colors.numpy())),
        rest,
        scene.opacities.logit()[:, None],
        scene.scales.log(),
        scene.quats,
    )
    return torch.cat([group.float() for group in groups], dim=1).numpy().astype("<f4", copy=False)


def _read_vertices(path: Path, table: PlyTable) -> np.ndarray:
    names = table.names
    required = (*POSITION, *DC, "opacity", *SCALE, *ROTATION)
    missing = [name for name in required if name not in names]
    if missing:
        raise PlyError(f"{path}: expected the properties of a splat, missing {', '.join(missing)} (a mesh?)")
    wrong = [name for name in required if table.dtype[name].kind != "f"]
    if wrong:
        raise PlyError(f"{path}: expected float properties, got {table.dtype[wrong[0]]} for {wrong[0]}")
    _rest_names(path, table)
    return table.read(path)


def _rest_names(path: Path, table: PlyTable) -> tuple[str, ...]:
    found = {name for name in table.names if name.startswith("f_rest_")}
    names = tuple(f"f_rest_{i}" for i in range(len(found)))
    if len(found) not in SH_DEGREES or found != set(names):
        raise PlyError(f"{path}: expected 0, 9, 24 or 45 properties f_rest_0.., got {len(found)}")
    return names


def _read_columns(path: Path, vertices: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    with np.errstate(over="ignore"):
        columns = np.stack([vertices[name] for name in names], axis=1).astype(np.float32)
    finite = np.isfinite(columns)
    if not finite.all():
        row, column = np.unravel_index(int(np.argmin(finite)), finite.shape)
        raise PlyError(f"{path}: expected finite numbers, vertex {row} has {names[column]} = {columns[row, column]}")
    return columns.astype(np.float64)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def quantiles(values: Tensor) -> str:
    """The 5, 50 and 95 % quantiles of a tensor, for people."""
    return " / ".join(f"{v:.4g}" for v in np.quantile(values.numpy(), [0.05, 0.5, 0.95]))
