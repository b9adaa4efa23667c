"""The two world frames a splat file may use, and the half-turn between them.

``opengl``: this library's world, +y up, the face looks along +z. ``opencv``: y down, the face looks along -z,
which is what SuperSplat and Babylon expect of a PLY. They differ by 180 degrees about X, its own inverse.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.types import Gaussians

AXES = ("opencv", "opengl")

SH_HALF_TURN_SIGNS = (
    *(-1, -1, 1),  # y, z, x
    *(-1, 1, 1, -1, 1),  # xy, yz, 2zz-xx-yy, xz, xx-yy
    *(-1, 1, -1),  # y(3xx-yy), xyz, y(4zz-xx-yy)
    *(-1, 1, -1, 1),  # z(2zz-3xx-3yy), x(4zz-xx-yy), z(xx-yy), x(xx-3yy)
)
"""What y -> -y, z -> -z does to the real spherical harmonics of degrees 1 to 3, in the order of files."""


def check_axes(axes: str) -> None:
    """Raise ValueError unless ``axes`` names one of the two frames."""
    if axes not in AXES:
        raise ValueError(f"axes: expected 'opencv' (y down, as SuperSplat expects) or 'opengl' (y up), got {axes!r}")


def half_turn_x(gaussians: Gaussians) -> Gaussians:
    """Rotate scenes by 180 degrees about X: from ``opengl`` to ``opencv`` axes or back.

    Means turn to (x, -y, -z); orientations are multiplied from the left by the quaternion i. Applied twice,
    the quaternions come back negated, which is the same rotation.
    """
    w, x, y, z = gaussians.quats.unbind(-1)
    return replace(
        gaussians,
        means=gaussians.means * gaussians.means.new_tensor([1.0, -1.0, -1.0]),
        quats=torch.stack([-x, w, -z, y], dim=-1),
    )


def half_turn_x_sh(sh_rest: Float[Tensor, "*batch coefficient 3"]) -> Float[Tensor, "*batch coefficient 3"]:
    """The same half-turn for spherical harmonics without the constant: 3, 8 or 15 per channel."""
    signs = sh_rest.new_tensor(SH_HALF_TURN_SIGNS[: sh_rest.shape[-2]])
    return sh_rest * signs[:, None]
