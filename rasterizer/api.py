"""``rasterize``: checks the arguments, flattens the batch axes, picks a backend, returns a ``Render``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE, MAX_SH_DEGREE
from rasterizer.reference import rasterize_reference
from rasterizer.spherical_harmonics import coefficient_count

BACKENDS = ("auto", "cpu", "reference")
HALF_TYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Render:
    """Images of the views of one call.

    Attributes:
        colors: blended colours over the background, in the range of the inputs; not clamped.
        alphas: coverage, 1 - final transmittance, [0, 1].
        depths: expected depth along the optical axis, sum of w z over sum of w, world units; 0 where nothing
            is hit; None unless asked for.
        info: ``instances`` (pairs of tile and splat that were listed, or None where a backend does not know;
            it depends on how closely a backend bounds a splat), ``culled`` (pairs of splat and view that
            reach no tile, for whatever reason), ``nonfinite`` (those of them that held NaN, an infinity or a
            zero quaternion, or overflowed in the projection) and ``backend`` (its name).
    """

    colors: Float[Tensor, "*batch view height width channel"]
    alphas: Float[Tensor, "*batch view height width 1"]
    depths: Float[Tensor, "*batch view height width 1"] | None
    info: dict[str, Any] = field(default_factory=dict)


def rasterize(  # noqa: PLR0913, PLR0917 - the argument list that users of gsplat know
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    backgrounds: Tensor | None = None,
    sh_degree: int | None = None,
    near_plane: float = DEFAULT_NEAR_PLANE,
    far_plane: float = DEFAULT_FAR_PLANE,
    eps2d: float = DEFAULT_EPS2D,
    antialiased: bool = False,
    depth: bool = False,
    backend: str = "auto",
) -> Render:
    """Render 3D Gaussians from pinhole cameras, every view of every scene in one call.

    ``...`` stands for any number of leading batch axes (none included), the same for all tensors. Gradients
    flow from colours, alphas and depths to every tensor argument. Splats that are not finite are left out,
    counted in ``Render.info["nonfinite"]`` and receive zero gradient. Half precision is computed and returned
    in float32, also under autocast. A splat covers what its projection covers with an alpha of at least
    1/255; alphas are capped at 0.99; a pixel ends before the splat that would bring its transmittance to 1e-4
    or below. Splats are blended by the depth of their centres, equal depths by index.

    Args:
        means: centres [..., N, 3], world units. N may be 0.
        quats: orientations [..., N, 4] as (w, x, y, z), of any length but zero; normalised inside.
        scales: standard deviations along the local axes [..., N, 3], world units.
        opacities: [..., N] in [0, 1].
        colors: [..., N, C] with any C >= 1, used as they are; or with ``sh_degree`` the spherical harmonics
            coefficients [..., N, K, 3], K >= (sh_degree + 1)^2, per scene; coefficients beyond are ignored.
        viewmats: world to camera [..., V, 4, 4], OpenCV axes (x right, y down, z forward); the last row is
            not read.
        Ks: intrinsics [..., V, 3, 3] in pixels; fx, fy, cx, cy are used, skew is ignored. The centre of the
            first pixel is at (0.5, 0.5).
        width: image width in pixels.
        height: image height in pixels.
        backgrounds: colours behind the splats [..., V, C]; None is 0.
        sh_degree: None for plain colours, or 0 to 3.
        near_plane: splats whose centre has a smaller depth are not drawn, world units, > 0.
        far_plane: splats whose centre has a larger depth are not drawn, world units.
        eps2d: variance added to the projected splats, square pixels, >= 0.
        antialiased: dim splats by the area that ``eps2d`` adds to them (Mip-Splatting).
        depth: also return expected depths.
        backend: "auto" (the compiled core for the device of the tensors, never the reference), "cpu" or
            "reference".

    Returns:
        The images, see ``Render``.

    Raises:
        ValueError: for arguments that do not fit, naming the argument and the fix, or a backend that is not
            available.
    """
    tensors = {
        "means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors,
        "viewmats": viewmats, "Ks": Ks,
    }  # fmt: skip
    if backgrounds is not None:
        tensors["backgrounds"] = backgrounds
    tensors = unify_types(tensors)
    check_options(width, height, sh_degree, near_plane, far_plane, eps2d)
    batch = check_shapes(tensors, sh_degree)
    chosen = choose_backend(backend, tensors["means"])
    arguments: dict[str, Any] = {
        name: tensor.reshape(math.prod(batch), *tensor.shape[len(batch) :]) for name, tensor in tensors.items()
    }
    arguments |= {
        "width": width, "height": height, "sh_degree": sh_degree, "near_plane": float(near_plane),
        "far_plane": float(far_plane), "eps2d": float(eps2d), "antialiased": bool(antialiased),
        "depth": bool(depth),
    }  # fmt: skip
    with torch.autocast(means.device.type, enabled=False):
        images, alphas, depths, info = find_backend(chosen)(**arguments)
    # A call without batch axes ran as a batch of one.
    images, alphas = images.reshape(*batch, *images.shape[1:]), alphas.reshape(*batch, *alphas.shape[1:])
    if depths is not None:
        depths = depths.reshape(*batch, *depths.shape[1:])
    return Render(images, alphas, depths, info)


def find_backend(name: str) -> Callable[..., tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]]:
    """The function behind a chosen backend; all take the arguments of ``rasterize_reference``."""
    if name == "reference":
        return rasterize_reference
    from rasterizer.autograd import rasterize_cpu

    return rasterize_cpu


def choose_backend(name: str, means: Tensor) -> str:
    """Resolve "auto" and check that the backend can serve tensors like ``means``; nothing falls back."""
    if name not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "reference":
        return name
    hint = 'backend="reference" computes in plain torch on any device and float type, slowly'
    if means.device.type != "cpu":
        raise ValueError(f"backend: {name!r} serves CPU tensors, means is on {means.device}; use .cpu(), or {hint}")
    if means.dtype != torch.float32:
        raise ValueError(
            f"backend: {name!r} computes in float32, means is {means.dtype}; convert with .float(), or {hint}"
        )
    if name == "auto":
        from rasterizer.backend import available_backends

        if "cpu" not in available_backends():
            raise ValueError(
                f"backend: the compiled CPU core is not available; build it with `pip install .`, or {hint}"
            )
    return "cpu"


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
    width: int, height: int, sh_degree: int | None, near_plane: float, far_plane: float, eps2d: float
) -> None:
    """Check the arguments that are numbers."""
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
