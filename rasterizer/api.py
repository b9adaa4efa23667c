"""``rasterize``: checks the arguments, flattens the batch axes, picks a backend, returns a ``Render``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rasterizer.checks import check_capacity, check_focals, check_options, check_shapes, unify_types
from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE, INRIA_NEAR_PLANE
from rasterizer.normals import render_normals
from rasterizer.reference import rasterize_reference

BACKENDS = ("auto", "cpu", "cuda", "reference")


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
            zero quaternion, or overflowed in the projection) and ``backend`` (its name). With ``max_instances``,
            and in compiled graphs, the counts are tensors; with it there is also ``overflowed``, a bool tensor:
            True where there was not room for all instances, so that the images lack some.
        normals: world-space normals, sum of w n over sum of w, not of unit length; 0 where nothing is hit; None
            unless asked for. A Gaussian's normal is its shortest axis, turned to the camera's side.
    """

    colors: Float[Tensor, "*batch view height width channel"]
    alphas: Float[Tensor, "*batch view height width 1"]
    depths: Float[Tensor, "*batch view height width 1"] | None
    info: dict[str, Any] = field(default_factory=dict)
    normals: Float[Tensor, "*batch view height width 3"] | None = None


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
    near_plane: float | None = None,
    far_plane: float = DEFAULT_FAR_PLANE,
    eps2d: float = DEFAULT_EPS2D,
    antialiased: bool = False,
    depth: bool = False,
    normals: bool = False,
    compat: str | None = None,
    deterministic: bool = True,
    max_instances: int | None = None,
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
        quats: orientations [..., N, 4] as (w, x, y, z), of any length whose square is a normal number (1e-19 is too
            short); normalised inside.
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
        near_plane: splats whose centre has a smaller depth are not drawn, world units, > 0. None is 0.01, or 0.2
            with ``compat="inria"``.
        far_plane: splats whose centre has a larger depth are not drawn, world units.
        eps2d: variance added to the projected splats, square pixels, >= 0.
        antialiased: dim splats by the area that ``eps2d`` adds to them (Mip-Splatting).
        depth: also return expected depths.
        normals: also return normals; they take a second pass.
        compat: None, or "inria": the image formation of the original 3D Gaussian Splatting where it differs, for
            scenes that were fitted with it. Splats end at 3 standard deviations, in whole tiles, gradients pass
            through the cap of alpha, and quaternions are expected to have unit length.
        deterministic: "cuda" only, the other backends always are: gradients have the same bits in every run. False
            adds them in the order in which they come, which can be faster.
        max_instances: "cuda" only: room for so many instances is kept, and nothing is asked back from the GPU, so
            that the call can be captured in a CUDA graph, once a first call has compiled the kernels for this number
            of channels. ``Render.info["overflowed"]`` tells whether there were more.
        backend: "auto" (the compiled core for the device of the tensors, never the reference), "cpu", "cuda" or
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
    if near_plane is None:
        near_plane = DEFAULT_NEAR_PLANE if compat is None else INRIA_NEAR_PLANE
    check_options(width, height, sh_degree, near_plane, far_plane, eps2d, compat)
    batch = check_shapes(tensors, sh_degree)
    check_focals(tensors["Ks"], width)
    chosen = choose_backend(backend, tensors["means"])
    check_capacity(max_instances, chosen)
    flat = {name: tensor.reshape(math.prod(batch), *tensor.shape[len(batch) :]) for name, tensor in tensors.items()}
    arguments: dict[str, Any] = {
        **flat, "width": width, "height": height, "sh_degree": sh_degree, "near_plane": float(near_plane),
        "far_plane": float(far_plane), "eps2d": float(eps2d), "antialiased": bool(antialiased),
        "depth": bool(depth), "inria": compat == "inria",
    }  # fmt: skip
    if chosen == "cuda":
        arguments.update(deterministic=bool(deterministic), max_instances=max_instances)
    function = find_backend(chosen)
    with torch.autocast(means.device.type, enabled=False):
        images, alphas, depths, info = function(**arguments)
        normal_maps = render_normals(function, arguments) if normals else None

    def restore(tensor: Tensor) -> Tensor:
        # A call without batch axes ran as a batch of one.
        return tensor.reshape(*batch, *tensor.shape[1:])

    return Render(
        colors=restore(images),
        alphas=restore(alphas),
        depths=None if depths is None else restore(depths),
        info=info,
        normals=None if normal_maps is None else restore(normal_maps),
    )


def find_backend(name: str) -> Callable[..., tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]]:
    """The function behind a chosen backend; all take the arguments of ``rasterize_reference``."""
    if name == "reference":
        return rasterize_reference
    if torch.compiler.is_compiling():
        from rasterizer.operators import rasterize_opaque

        return rasterize_opaque
    if name == "cuda":
        from rasterizer.cuda_autograd import rasterize_cuda

        return rasterize_cuda
    from rasterizer.autograd import rasterize_cpu

    return rasterize_cpu


def choose_backend(name: str, means: Tensor) -> str:
    """Resolve "auto" and check that the backend can serve tensors like ``means``; nothing falls back."""
    if name not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "reference":
        return name
    hint = 'backend="reference" computes in plain torch on any device and float type, slowly'
    device = means.device.type
    if device not in ("cpu", "cuda") if name == "auto" else device != name:
        served = "CPU and CUDA" if name == "auto" else name.upper()
        fix = "use .cpu()" if name != "cuda" else "use .cuda()"
        raise ValueError(f"backend: {name!r} serves {served} tensors, means is on {means.device}; {fix}, or {hint}")
    if means.dtype != torch.float32:
        raise ValueError(
            f"backend: {name!r} computes in float32, means is {means.dtype}; convert with .float(), or {hint}"
        )
    if name == "auto" and device == "cpu" and not torch.compiler.is_compiling():
        from rasterizer.backend import BackendError, load_library

        try:
            load_library()
        except BackendError as error:
            raise ValueError(f"backend: the compiled CPU core is not available: {error}; or {hint}") from error
    return device
