"""What every splat writer asks of a scene before it writes, and every reader of a file before it believes it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from cgsgan.export.axes import check_axes, half_turn_x
from cgsgan.types import SH_C0, Gaussians

PRUNE_OPACITY = 1 / 255
"""Below this opacity a splat cannot change an 8-bit picture; most viewers skip such contributions anyway."""
OPACITY_MARGIN = 2.0**-24
"""Opacities are kept this far from 0 and 1, where the logit is infinite; invisible, and exact in float32."""
SMALLEST_SCALE = 1e-12
"""World units; standard deviations of 0 are written as this, because ln 0 is not a number viewers accept."""
LARGEST_EXPANSION = 100
"""A compressed file that claims to hold more than this many times its own size is a bomb; splats shrink to a third."""
HARMLESS_BYTES = 1 << 26
"""... unless it is this small when unpacked."""


class SplatFileError(ValueError):
    """A file does not hold the splats it should; the message is one line: file, what was expected, what came."""


class ViewDependentColorWarning(UserWarning):
    """Spherical harmonics above degree 0 were in a file and are not in what was read."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a scene is written, whatever the format.

    Attributes:
        axes: frame of the file: ``opencv`` (y down, face along -z), ``opengl`` (y up, face along +z), or None for
            the one that the format prescribes or its viewers expect.
        prune: splats with an opacity below this are left out; 0 keeps all.
        extra_dilation: world units, added in quadrature to every standard deviation. Bakes in the pixel
            dilation of the renderer a generator was trained with, which other viewers do not apply.
        spz_version: 2, 3 or 4, for SPZ files alone. Spark 2.2 opens 3 and not 4; 2 has coarser rotations.
        generated: by a generator, for pages alone: they show nothing beyond the pictures of its training.
    """

    axes: str | None = None
    prune: float | int = PRUNE_OPACITY
    extra_dilation: float | int = 0.0
    spz_version: int = 3
    generated: bool = False


DEFAULTS = ExportOptions()
"""Pruned at 1/255, nothing baked in."""


@dataclass(frozen=True, kw_only=True)
class RawSplats:
    """Splats as a file states them: activated, in its axes, not yet believed.

    Attributes:
        means: [N, 3], centres.
        quats: [N, 4], (w, x, y, z) of any length but 0.
        scales: [N, 3], standard deviations.
        opacities: [N], in [0, 1].
        colors: [N, 3], sRGB; below 0 is raised to 0, as viewers do.
    """

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray


def prepare_scene(
    gaussians: Gaussians, options: ExportOptions, *, axes: str, writer: str
) -> tuple[Gaussians, Bool[Tensor, " gaussian"]]:
    """Check, prune, dilate and turn one scene.

    Args:
        gaussians: one scene without a batch axis, RGB, in this library's world (+y up, face along +z).
        options: what to do with it.
        axes: frame of the file when ``options`` names none.
        writer: the function that the messages shall name.

    Returns:
        The scene in the axes of the file, CPU, float64, unit quaternions, scales and opacities clamped to what
        logarithms and logits bear; and which of the given splats it holds, bool.

    Raises:
        ValueError: for a batch, other than three colour channels, NaN or Inf, a zero quaternion, a negative
            scale, an option out of range, or when pruning leaves nothing.
    """
    keep = check_scene(gaussians, options, writer=writer)
    kept = gaussians if bool(keep.all()) else gaussians.map(lambda tensor: tensor[keep.to(tensor.device)])
    return finish_scene(kept, options, axes=axes), keep


def check_scene(gaussians: Gaussians, options: ExportOptions, *, writer: str) -> Bool[Tensor, " gaussian"]:
    """Which Gaussians of a scene are written, on the CPU; refuses scenes as :func:`prepare_scene`."""
    if options.axes is not None:
        check_axes(options.axes)
    _check_values(gaussians, options, writer)
    keep = gaussians.opacities.detach().to("cpu", torch.float64) >= options.prune
    if not bool(keep.any()):
        raise ValueError(
            f"{writer}: none of the {gaussians.count} Gaussians reaches the opacity prune = {options.prune:.4g}"
        )
    return keep


def finish_scene(gaussians: Gaussians, options: ExportOptions, *, axes: str) -> Gaussians:
    """A checked scene, or a part of one, as :func:`prepare_scene` gives it."""
    scene = gaussians.map(lambda tensor: tensor.detach().to("cpu", torch.float64))
    scene = replace(
        scene,
        quats=scene.quats / scene.quats.norm(dim=-1, keepdim=True),
        scales=torch.hypot(scene.scales, scene.scales.new_tensor(options.extra_dilation)).clamp_min(SMALLEST_SCALE),
        opacities=scene.opacities.clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN),
    )
    return half_turn_x(scene) if (options.axes or axes) == "opencv" else scene


def believe(path: Path, raw: RawSplats, *, axes: str) -> Gaussians:
    """Splats of a file as a scene of this library's world.

    Args:
        path: for messages.
        raw: what the file states.
        axes: its frame.

    Returns:
        One scene on the CPU, float32, with unit quaternions.

    Raises:
        SplatFileError: for NaN or infinity, a zero quaternion, a negative scale, an opacity outside [0, 1].
    """
    with np.errstate(over="ignore"):
        columns = {name: np.asarray(value, dtype=np.float32) for name, value in vars(raw).items()}
    for name, values in columns.items():
        _expect(path, name, np.isfinite(values), values, "finite numbers")
    norms = np.linalg.norm(raw.quats.astype(np.float64), axis=1, keepdims=True)
    _expect(path, "quats", norms > 0, columns["quats"], "quaternions of non-zero length")
    _expect(path, "scales", columns["scales"] >= 0, columns["scales"], "standard deviations >= 0")
    _expect(path, "opacities", (columns["opacities"] >= 0) & (columns["opacities"] <= 1), columns["opacities"], "0..1")
    columns["quats"] = (raw.quats / norms).astype(np.float32)
    columns["scales"] = np.maximum(columns["scales"], np.finfo(np.float32).tiny)
    columns["colors"] = np.maximum(columns["colors"], 0)
    scene = Gaussians(
        **{name: torch.from_numpy(np.require(values, requirements=("C", "W"))) for name, values in columns.items()}
    )
    return half_turn_x(scene) if axes == "opencv" else scene


def read_bytes(path: Path, *, smallest: int, kind: str) -> bytes:
    """The whole file.

    Raises:
        SplatFileError: when it is shorter than ``smallest`` bytes, which no ``kind`` is.
        OSError: when it cannot be opened.
    """
    data = path.read_bytes()
    if len(data) < smallest:
        raise SplatFileError(f"{path}: expected {kind} of at least {smallest} bytes, the file has {len(data)}")
    return data


def check_expansion(path: Path, *, packed: int, unpacked: int, what: str) -> None:
    """Refuse to unpack what is too large for the file it claims to come from.

    Args:
        path: for messages.
        packed: bytes of the file.
        unpacked: bytes that are claimed.
        what: what they would be.

    Raises:
        SplatFileError: when they are more than ``LARGEST_EXPANSION`` times the file, and not small either.
    """
    if unpacked > max(HARMLESS_BYTES, LARGEST_EXPANSION * packed):
        raise SplatFileError(
            f"{path}: expected at most {LARGEST_EXPANSION} times the file's {packed} bytes when unpacked, "
            f"{what} would be {unpacked} (damaged, or a decompression bomb)"
        )


def warn_dropped_color(path: Path, degree: int) -> None:
    """Say that a file's view-dependent colour is not in what was read of it."""
    text = f"{path}: spherical harmonics of degree 1 to {degree} are dropped, the colour does not change with the view"
    warnings.warn(text, ViewDependentColorWarning, stacklevel=3)


def color_to_dc(colors: np.ndarray) -> np.ndarray:
    """Colours to the constant coefficient of spherical harmonics."""
    return (colors - 0.5) / SH_C0


def dc_to_color(dc: np.ndarray) -> np.ndarray:
    """The constant coefficient of spherical harmonics to colours."""
    return 0.5 + SH_C0 * dc


def _check_values(gaussians: Gaussians, options: ExportOptions, writer: str) -> None:
    if gaussians.means.ndim != 2:
        raise ValueError(
            f"{writer}: expected one scene with means [N, 3], got {list(gaussians.means.shape)}; use gaussians.scene(i)"
        )
    if gaussians.colors.shape[-1] != 3:
        raise ValueError(f"{writer}: expected 3 colour channels, got {gaussians.colors.shape[-1]}")
    if not 0 <= options.prune < 1:
        raise ValueError(f"{writer}: prune must be an opacity in [0, 1), got {options.prune}")
    if not 0 <= options.extra_dilation < float("inf"):
        raise ValueError(f"{writer}: extra_dilation must be a length >= 0 in world units, got {options.extra_dilation}")
    for name, tensor in vars(gaussians).items():
        single = tensor.float()  # the files are float32
        if not bool(single.sum(dtype=torch.float64).isfinite()):  # which no sum of finite numbers leaves
            bad = int((~single.isfinite()).sum())
            raise ValueError(f"{writer}: gaussians.{name} holds {bad} NaN or Inf of {tensor.numel()} values")
    if gaussians.count and bool(gaussians.scales.min() < 0):
        raise ValueError(f"{writer}: gaussians.scales must be standard deviations >= 0; these look like logarithms")
    if bool((gaussians.quats == 0).all(dim=-1).any()):
        raise ValueError(f"{writer}: gaussians.quats holds a zero quaternion, which is no rotation")


def _expect(path: Path, name: str, good: np.ndarray, values: np.ndarray, expected: str) -> None:
    if good.all():
        return
    row = int(np.argmin(good.reshape(len(good), -1).all(axis=1)))
    got = " ".join(f"{v:.4g}" for v in np.atleast_1d(values[row]).tolist())
    raise SplatFileError(f"{path}: expected {expected}, splat {row} has {name} = {got}")
