"""Checks of the arguments of ``rasterize``: every error names the argument, what was expected, and the fix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rasterizer.constants import MAX_SH_DEGREE
from rasterizer.spherical_harmonics import coefficient_count

HALF_TYPES = (torch.float16, torch.bfloat16)
COMPATIBLE = ("inria",)
# Focal lengths of intrinsics divided by the image size are around 1 to 5, of pixels at least half the image.
NORMALIZED_FOCAL = 2.0
NORMALIZED_WIDTH = 16


def unify_types(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Check that all are float tensors of one type on one device; half precision becomes float32."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: expected a float tensor, got {tensor.dtype}; convert it with .float()")
    full = {name: t.float() if t.dtype in HALF_TYPES else t for name, t in tensors.items()}
    first = full["means"]
    for name, tensor in full.items():
        if tensor.dtype != first.dtype:
            raise ValueError(
                f"{name}: expected {first.dtype} like means, got {tensor.dtype}; use {name}.to(means.dtype)"
            )
        if tensor.device != first.device:
            raise ValueError(
                f"{name}: expected device {first.device} like means, got {tensor.device}; use {name}.to(means.device)"
            )
    return full


def check_options(
    width: int,
    height: int,
    sh_degree: int | None,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    compat: str | None,
) -> None:
    """Check the arguments that are no tensors."""
    for name, size in (("width", width), ("height", height)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name}: expected an integer of at least 1 (pixels), got {size!r}")
    if not 0 < near_plane < far_plane:
        raise ValueError(
            f"near_plane, far_plane: expected 0 < near_plane < far_plane, got {near_plane!r}, {far_plane!r}"
        )
    if not 0 <= eps2d < math.inf:
        raise ValueError(f"eps2d: expected a finite number >= 0 (square pixels), got {eps2d!r}")
    if sh_degree is not None and (isinstance(sh_degree, bool) or sh_degree not in range(MAX_SH_DEGREE + 1)):
        raise ValueError(f"sh_degree: expected None or an integer from 0 to {MAX_SH_DEGREE}, got {sh_degree!r}")
    if compat is not None and compat not in COMPATIBLE:
        raise ValueError(f"compat: expected None or one of {', '.join(COMPATIBLE)}, got {compat!r}")


def check_capacity(max_instances: int | None, backend: str) -> None:
    """Check ``max_instances`` against the chosen backend."""
    if max_instances is None:
        return
    if isinstance(max_instances, bool) or not isinstance(max_instances, int) or not 0 <= max_instances < 2**31:
        raise ValueError(f"max_instances: expected None or an integer from 0 to 2^31 - 1, got {max_instances!r}")
    if backend != "cuda":
        raise ValueError(
            f'max_instances: only the "cuda" backend works with a fixed capacity, the chosen one is {backend!r}; '
            "leave it out"
        )


def check_focals(Ks: Tensor, width: int) -> None:
    """Refuse intrinsics divided by the image size. On the CPU only: elsewhere a look at numbers makes the host wait."""
    if Ks.device.type != "cpu" or width <= NORMALIZED_WIDTH or torch.compiler.is_compiling():
        return
    focals = torch.diagonal(Ks.detach()[..., :2, :2], dim1=-2, dim2=-1)
    if bool((focals < NORMALIZED_FOCAL).all()):
        raise ValueError(
            f"Ks: expected intrinsics in pixels, got focal lengths of at most {focals.max():.4g} pixels for images "
            f"{width} pixels wide; if Ks is divided by the image size, multiply row 0 by width and row 1 by height"
        )


def check_shapes(tensors: dict[str, Tensor], sh_degree: int | None) -> tuple[int, ...]:
    """Check every shape against those of ``means`` and ``viewmats``; return the leading batch axes."""
    means, viewmats, colors = tensors["means"], tensors["viewmats"], tensors["colors"]
    if means.ndim < 2 or means.shape[-1] != 3:
        raise ValueError(f"means: expected shape [..., N, 3], got {list(means.shape)}")
    batch, count = tuple(means.shape[:-2]), means.shape[-2]
    if 0 in batch:
        raise ValueError(f"means: expected batch axes without zeros, got shape {list(means.shape)}")
    if viewmats.ndim < 3 or viewmats.shape[-3] < 1:
        raise ValueError(
            f"viewmats: expected shape [..., V, 4, 4] with V >= 1, got {list(viewmats.shape)}; "
            "a single camera takes viewmats[None]"
        )
    views = viewmats.shape[-3]
    check_colors(colors, sh_degree)
    expected = {
        "quats": (count, 4), "scales": (count, 3), "opacities": (count,), "viewmats": (views, 4, 4),
        "Ks": (views, 3, 3), "backgrounds": (views, colors.shape[-1]),
        "colors": (count, *colors.shape[-1 if sh_degree is None else -2 :]),
    }  # fmt: skip
    for name, tail in expected.items():
        tensor = tensors.get(name)
        if tensor is not None and tuple(tensor.shape) != (*batch, *tail):
            raise ValueError(
                f"{name}: expected shape {[*batch, *tail]} (batch axes {list(batch)} and N = {count} are "
                f"those of means, V = {views} that of viewmats), got {list(tensor.shape)}; reshape it"
            )
    return batch


def check_colors(colors: Tensor, sh_degree: int | None) -> None:
    """Check the trailing axes of ``colors``, whose meaning depends on ``sh_degree``."""
    if sh_degree is None:
        if colors.ndim < 2 or colors.shape[-1] < 1:
            raise ValueError(f"colors: expected shape [..., N, C] with C >= 1, got {list(colors.shape)}")
        return
    needed = coefficient_count(sh_degree)
    if colors.ndim < 3 or colors.shape[-1] != 3 or colors.shape[-2] < needed:
        raise ValueError(
            f"colors: with sh_degree={sh_degree} expected coefficients [..., N, K, 3] with K >= {needed}, "
            f"got {list(colors.shape)}; for plain colours leave sh_degree out"
        )
