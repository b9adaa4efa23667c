"""View-dependent colours: real spherical harmonics of degree 0 to 3, in the sign convention of 3DGS files."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

C0 = 0.28209479177387814  # 1 / (2 sqrt(pi))
C1 = 0.4886025119029199  # sqrt(3 / (4 pi))
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def coefficient_count(sh_degree: int) -> int:
    """Coefficients per channel of an expansion up to ``sh_degree``: (d + 1)^2."""
    return (sh_degree + 1) ** 2


def evaluate_basis(directions: Float[Tensor, "n 3"], sh_degree: int) -> Float[Tensor, "n coefficient"]:
    """Values of the real spherical harmonics in the given unit directions, m from -l to l within each degree.

    The Condon-Shortley sign (-1)^m is kept, as in the files of 3D Gaussian Splatting: Y_1 = C1 (-y, z, -x).

    Args:
        directions: unit vectors.
        sh_degree: 0 to 3.

    Returns:
        ``(sh_degree + 1)^2`` values per direction.
    """
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, C0)]
    if sh_degree >= 1:
        basis += [-C1 * y, C1 * z, -C1 * x]
    if sh_degree >= 2:
        basis += [
            C2[0] * x * y,
            -C2[0] * y * z,
            C2[1] * (2 * z * z - x * x - y * y),
            -C2[0] * x * z,
            C2[2] * (x * x - y * y),
        ]
    if sh_degree >= 3:
        basis += [
            -C3[0] * y * (3 * x * x - y * y),
            C3[1] * x * y * z,
            -C3[2] * y * (4 * z * z - x * x - y * y),
            C3[3] * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -C3[2] * x * (4 * z * z - x * x - y * y),
            C3[4] * z * (x * x - y * y),
            -C3[0] * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, -1)


def camera_center(viewmat: Float[Tensor, "4 4"]) -> Float[Tensor, "3"]:
    """Where the camera stands in the world, ``-R^-1 t``, by Cramer's rule."""
    a, b, c = viewmat[:3, :3].unbind(0)
    bc, ca, ab = torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)
    return -(viewmat[0, 3] * bc + viewmat[1, 3] * ca + viewmat[2, 3] * ab) / (a * bc).sum()


def evaluate_colors(
    means: Float[Tensor, "n 3"],
    sh_coeffs: Float[Tensor, "n coefficient 3"],
    viewmat: Float[Tensor, "4 4"],
    sh_degree: int,
) -> Float[Tensor, "n 3"]:
    """Colours of splats seen from a camera: ``max(0, SH(direction) + 0.5)``.

    The direction runs from the camera centre to the splat. The centre is ``-R^-1 t``; ``viewmat`` need not be
    rigid, and its gradient through the centre is exact.

    Args:
        means: centres in world units.
        sh_coeffs: at least ``(sh_degree + 1)^2`` coefficients; further ones are ignored.
        viewmat: world to camera, OpenCV axes.
        sh_degree: 0 to 3.

    Returns:
        Non-negative colours; gradient zero in the channels that the maximum cuts.
    """
    count = coefficient_count(sh_degree)
    offsets = means - camera_center(viewmat)
    basis = evaluate_basis(offsets / torch.linalg.vector_norm(offsets, dim=-1, keepdim=True), sh_degree)
    colors = (basis.unsqueeze(-1) * sh_coeffs[:, :count]).sum(1) + 0.5
    return torch.relu(colors)
