"""Images of normals: each Gaussian's shortest axis, turned to face the camera, blended like a colour.

A disc-like Gaussian lies in its surface, so its shortest axis is the surface's normal (as in 2DGS, Huang et al. 2024,
and SuGaR, Guedon and Lepetit 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rasterizer.averaging import divide_by_alphas
from rasterizer.reference_projection import rotation_matrices
from rasterizer.spherical_harmonics import coefficient_count


def shortest_axes(quats: Float[Tensor, "batch n 4"], scales: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3"]:
    """Unit vectors along the shortest axes, of arbitrary sign; equal scales: the first of them.

    Gradients reach ``quats``. Where a quaternion has no direction (zero, or not finite) the axis is one of the world,
    without gradient; the backends do not draw such Gaussians.
    """
    norms = torch.linalg.vector_norm(quats.detach(), dim=-1, keepdim=True)
    usable = (norms > 0) & norms.isfinite()
    identity = quats.new_tensor([1.0, 0.0, 0.0, 0.0])
    rotations = rotation_matrices(torch.where(usable, quats, identity).flatten(0, 1)).unflatten(0, quats.shape[:2])
    shortest = scales.detach().argmin(-1)[..., None, None].expand(*scales.shape, 1)
    return rotations.gather(-1, shortest).squeeze(-1)


def face_cameras(
    axes: Float[Tensor, "batch n 3"], means: Float[Tensor, "batch n 3"], viewmats: Float[Tensor, "batch view 4 4"]
) -> Float[Tensor, "batch view n 3"]:
    """The axes, each with the sign that makes it point to the side of its Gaussian where the camera stands."""
    with torch.no_grad():
        a, b, c = viewmats[..., :3, :3].unbind(-2)
        bc, ca, ab = torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)
        # Where the cameras stand, -R^-1 t, by Cramer's rule: a matrix that has no inverse raises nothing.
        x, y, z = viewmats[..., :3, 3:].unbind(-2)
        centers = -(x * bc + y * ca + z * ab) / (a * bc).sum(-1, keepdim=True)
        offsets = centers.unsqueeze(2) - means.unsqueeze(1)
        facing = (offsets * axes.unsqueeze(1)).sum(-1, keepdim=True) >= 0
    return torch.where(facing, axes.unsqueeze(1), -axes.unsqueeze(1))


def drop_bad_colors(
    opacities: Float[Tensor, "batch n"], colors: Float[Tensor, "batch n *channels"], sh_degree: int | None
) -> Float[Tensor, "batch n"]:
    """Opacities that are NaN where a colour is not finite, so that colours and normals show the same Gaussians."""
    used = colors if sh_degree is None else colors[:, :, : coefficient_count(sh_degree)]
    return torch.where(used.isfinite().flatten(2).all(-1), opacities, torch.nan)


def render_normals(
    function: Callable[..., tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]], arguments: dict[str, Any]
) -> Float[Tensor, "batch view height width 3"]:
    """Normals as a backend blends them, divided by alpha; 0 where nothing is hit. Not of unit length.

    Args:
        function: a backend.
        arguments: of the call whose normals are wanted, as for the backend.
    """
    means, viewmats = arguments["means"], arguments["viewmats"]
    batch, views = viewmats.shape[:2]
    normals = face_cameras(shortest_axes(arguments["quats"], arguments["scales"]), means, viewmats)
    # A normal's sign depends on the view, so each view becomes a scene of its own.
    scene = {name: arguments[name] for name in ("means", "quats", "scales", "opacities")}
    scene["opacities"] = drop_bad_colors(scene["opacities"], arguments["colors"], arguments["sh_degree"])
    scene = {name: tensor.repeat_interleave(views, 0) for name, tensor in scene.items()}
    cameras = {name: arguments[name].flatten(0, 1).unsqueeze(1) for name in ("viewmats", "Ks")}
    own = {"colors": normals.flatten(0, 1), "backgrounds": None, "sh_degree": None, "depth": False}
    sums, alphas, *_ = function(**{**arguments, **scene, **cameras, **own})
    images = divide_by_alphas(sums, alphas)
    return images.reshape(batch, views, *images.shape[2:])
