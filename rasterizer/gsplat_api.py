"""``rasterization``: the call of gsplat served by this package, so that users switch by one import."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rasterizer.api import rasterize
from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE, TILE_SIZE

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
RASTERIZE_MODES = ("classic", "antialiased")
# Options of newer versions of gsplat for cameras that are not served here; switched off, they are harmless.
FURTHER_OPTIONS = (
    "with_ut", "with_eval3d", "radial_coeffs", "tangential_coeffs", "thin_prism_coeffs", "ftheta_coeffs",
    "rolling_shutter", "viewmats_rs",
)  # fmt: skip


def rasterization(  # noqa: PLR0913, PLR0917 - gsplat's signature, names and order
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = DEFAULT_NEAR_PLANE,
    far_plane: float = DEFAULT_FAR_PLANE,
    radius_clip: float = 0.0,
    eps2d: float = DEFAULT_EPS2D,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = TILE_SIZE,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    *,
    global_z_order: bool = True,
    backend: str = "auto",
    **others: object,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render with the arguments and results of ``gsplat.rasterization``, for pinhole cameras.

    Two things differ. Gradients also reach ``Ks``; and ``meta`` holds no intermediate tensors (``means2d``,
    ``radii``...), so strategies that densify by screen-space gradients do not run on it. ``packed``,
    ``tile_size``, ``channel_chunk`` and ``segmented`` steer gsplat's memory and speed, not its image: they
    are accepted and ignored.

    Args:
        means: centres [..., N, 3].
        quats: orientations [..., N, 4], (w, x, y, z), normalised inside.
        scales: standard deviations [..., N, 3].
        opacities: [..., N] in [0, 1].
        colors: [..., N, D] or one set per camera [..., C, N, D]; with ``sh_degree`` the coefficients
            [..., N, K, 3] or [..., C, N, K, 3].
        viewmats: world to camera [..., C, 4, 4], OpenCV axes.
        Ks: intrinsics [..., C, 3, 3] in pixels.
        width: image width in pixels.
        height: image height in pixels.
        near_plane: smallest depth drawn.
        far_plane: largest depth drawn.
        radius_clip: must be 0.
        eps2d: variance added to the projected splats, square pixels.
        sh_degree: None for plain colours, or 0 to 3.
        packed: ignored.
        tile_size: ignored.
        backgrounds: [..., C, D] or None for 0; not added to depths.
        render_mode: "RGB", "D" (sum of w z), "ED" (sum of w z / sum of w), "RGB+D" or "RGB+ED", depth last.
        sparse_grad: must be False.
        absgrad: must be False.
        rasterize_mode: "classic" or "antialiased".
        channel_chunk: ignored.
        distributed: must be False.
        camera_model: must be "pinhole".
        segmented: ignored.
        covars: must be None.
        global_z_order: must be True: splats are blended by depth along the optical axis.
        backend: as in ``rasterizer.rasterize``; not an argument of gsplat.
        **others: arguments of gsplat for other camera models, which must be None or False.

    Returns:
        Colours [..., C, height, width, X], X following ``render_mode``, alphas [..., C, height, width, 1],
        and ``meta``: ``width``, ``height``, ``n_cameras`` and what ``rasterizer.Render.info`` holds.

    Raises:
        ValueError: for options that are not supported, and whatever ``rasterizer.rasterize`` raises it for.
    """
    unknown = sorted(set(others) - set(FURTHER_OPTIONS))
    if unknown:
        raise TypeError(f"rasterization() got an unexpected keyword argument {unknown[0]!r}")
    check_supported(
        {
            "radius_clip": radius_clip, "sparse_grad": sparse_grad, "absgrad": absgrad, "covars": covars,
            "distributed": distributed, "global_z_order=False": not global_z_order, **others,
        }
    )  # fmt: skip
    for name, value, known in (
        ("render_mode", render_mode, RENDER_MODES),
        ("rasterize_mode", rasterize_mode, RASTERIZE_MODES),
        ("camera_model", camera_model, ("pinhole",)),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    scene: dict[str, Any] = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
    cameras: dict[str, Any] = {"viewmats": viewmats, "Ks": Ks}
    if backgrounds is not None:
        cameras["backgrounds"] = backgrounds
    per_camera = colors.ndim == means.ndim + (1 if sh_degree is None else 2)
    if per_camera:
        scene, cameras = pair_scenes_with_cameras(scene, cameras)
    render = rasterize(
        **scene, **cameras, width=width, height=height, sh_degree=sh_degree, near_plane=near_plane,
        far_plane=far_plane, eps2d=eps2d, antialiased=rasterize_mode == "antialiased",
        depth=render_mode != "RGB", backend=backend,
    )  # fmt: skip
    images, alphas, depths = render.colors, render.alphas, render.depths
    if depths is not None:
        last = depths if render_mode.endswith("ED") else depths * alphas
        images = torch.cat([images, last], -1) if render_mode.startswith("RGB") else last
    if per_camera:
        images, alphas = images.squeeze(-4), alphas.squeeze(-4)
    return images, alphas, {"width": width, "height": height, "n_cameras": viewmats.shape[-3], **render.info}


def check_supported(options: dict[str, object]) -> None:
    """Refuse options that would change the result; those of gsplat that are off pass."""
    refused = [
        name
        for name, value in options.items()
        if isinstance(value, Tensor) or (value is not None and value is not False and value != 0)
    ]
    if refused:
        raise ValueError(
            f"{', '.join(refused)}: not supported by rasterizer.rasterization, which renders pinhole cameras "
            "with dense gradients on one device; leave the option out"
        )


def pair_scenes_with_cameras(
    scene: dict[str, Tensor], cameras: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Turn colours per camera into scenes of their own, seen by one camera each: axes [..., C, 1]."""
    colors, means, count = scene["colors"], scene["means"], cameras["viewmats"].shape[-3]
    axis = means.ndim - 2
    if colors.shape[axis] != count:
        raise ValueError(
            f"colors: expected shape [..., C, N, ...], C = {count} like viewmats, got {list(colors.shape)}"
        )
    scene = {
        name: tensor.unsqueeze(axis).expand(*tensor.shape[:axis], count, *tensor.shape[axis:])
        for name, tensor in scene.items()
        if name != "colors"
    }
    return {**scene, "colors": colors}, {name: tensor.unsqueeze(axis + 1) for name, tensor in cameras.items()}
