"""A camera that can be learned: on the sphere of the training cameras, with the slack that a hand-made crop needs."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import FOCAL_NORMALIZED, ORBIT_RADIUS, Cameras, look_at

PITCH_SPREAD = math.radians(9)
"""Standard deviation of the pitch in pictures of heads, such as EG3D's training sets."""
SLACK_WEIGHT = 2.5
"""Of the penalty on everything but yaw and pitch; a roll of 10 degrees, a shift of 3 % of the picture and a zoom of 5 %
count alike."""
PITCH_WEIGHT = 0.05
"""Of the penalty on the square of the pitch over its spread: a nod and a raised camera look alike."""
ROLL_UNIT, SHIFT_UNIT, ZOOM_UNIT = 0.17, 0.03, 0.05


class OrbitCameras(nn.Module):
    """V cameras that look at the origin, as parameters.

    Attributes:
        angles: yaw and pitch, radians.
        slack: roll, shift of the picture in x and y and logarithm of the zoom, in units of what a careless crop has.
    """

    def __init__(self, yaw: Float[Tensor, " view"], pitch: Float[Tensor, " view"], *, roll: bool = True) -> None:
        super().__init__()
        self.angles = nn.Parameter(torch.stack([yaw, pitch], dim=-1))
        self.slack = nn.Parameter(yaw.new_zeros(len(yaw), 4), requires_grad=roll)

    def forward(self) -> Cameras:
        """The cameras, ``[1, view]``, with a graph."""
        yaw, pitch = self.angles.unbind(-1)
        positions = ORBIT_RADIUS * torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], dim=-1)
        cam_to_world = look_at(positions)
        units = self.slack.new_tensor([ROLL_UNIT, SHIFT_UNIT, SHIFT_UNIT, ZOOM_UNIT])
        roll, shift_x, shift_y, zoom = (self.slack * units).unbind(-1)
        zero, one = torch.zeros_like(roll), torch.ones_like(roll)
        turn = torch.stack([roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one], dim=-1)
        rotation = cam_to_world[:, :3, :3] @ turn.unflatten(-1, (3, 3))
        rigid = rotation.mT
        translation = -(rigid @ positions[:, :, None])
        last = positions.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(positions), 1, 4)
        viewmats = torch.cat([torch.cat([rigid, translation], dim=-1), last], dim=-2)
        focal = FOCAL_NORMALIZED * zoom.exp()
        Ks = torch.stack(
            [focal, zero, 0.5 + shift_x, zero, focal, 0.5 + shift_y, zero, zero, one],
            dim=-1,
        ).unflatten(-1, (3, 3))
        return Cameras(viewmats=viewmats[None], Ks_normalized=Ks[None])

    def penalty(self) -> Float[Tensor, ""]:
        """Keeps what can also be explained by yaw and pitch from being explained by a crooked crop, and what can also
        be explained by the face from being explained by the pitch.
        """
        pitch = self.angles[:, 1] / PITCH_SPREAD
        return SLACK_WEIGHT * self.slack.square().mean() + PITCH_WEIGHT * pitch.square().mean()
