"""The scene that shows at a glance, and in a figure, whether a viewer has our axes, colours, sizes and rotations.

In this library's world: a red ball at +x, a green one at +y, a blue one at +z, each smaller than the last; a brown head
between them with a white face and nose towards +z; a translucent yellow cloud at -x; and three long thin Gaussians,
magenta, cyan and orange, that lie askew. No flip, turn or mirroring leaves it as it is.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.types import Gaussians

RED, GREEN, BLUE = (0.85, 0.12, 0.10), (0.15, 0.70, 0.20), (0.15, 0.25, 0.90)
BROWN, WHITE, YELLOW = (0.55, 0.38, 0.28), (0.96, 0.95, 0.93), (0.95, 0.85, 0.20)
BALLS = (
    ((0.36, 0.0, 0.0), 0.10, RED),
    ((0.0, 0.36, 0.0), 0.08, GREEN),
    ((0.0, 0.0, 0.38), 0.06, BLUE),
    ((0.0, 0.0, 0.0), 0.20, BROWN),
    ((0.0, -0.02, 0.20), 0.04, WHITE),
)
"""Centre, radius and colour of each; the last is the nose."""
SPACING = 0.008
"""World units between neighbours on a ball."""
STICKS = (
    ((0.26, 0.26, 0.10), (1.0, -1.0, 1.0), (0.80, 0.10, 0.75)),
    ((-0.22, 0.24, 0.16), (1.0, 2.0, 0.5), (0.10, 0.75, 0.80)),
    ((0.20, -0.28, 0.12), (2.0, 1.0, -1.0), (0.95, 0.50, 0.10)),
)
"""Centre, direction of the longest axis and colour."""
CLOUD_CENTER, CLOUD_SIZE, CLOUD_COUNT = (-0.36, 0.0, 0.0), 0.05, 400


def axis_balls(spacing: float = SPACING) -> Gaussians:
    """The scene, without a batch axis: about 12,500 Gaussians.

    Args:
        spacing: world units between neighbours on a ball; half of it is four times as many Gaussians.
    """
    parts = [_ball(*ball, spacing) for ball in BALLS]
    parts += [_stick(*stick) for stick in STICKS]
    return Gaussians.cat([*parts, _cloud()])


def _ball(
    center: tuple[float, float, float], radius: float, color: tuple[float, float, float], spacing: float
) -> Gaussians:
    """Discs, twice as long as wide, along a Fibonacci spiral; the middle one has its face painted."""
    count = max(16, round(4 * math.pi * (radius / spacing) ** 2))
    index = torch.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, index * (math.pi * (3 - 5**0.5))
    ring = (1 - height**2).sqrt()
    normals = torch.stack([ring * angle.cos(), height, ring * angle.sin()], dim=-1)
    colors = torch.tensor(color) + 0.04 * torch.sin(7 * index)[:, None]  # so that the order of neighbours shows
    if color == BROWN:
        face = (normals[:, 2] > 0.55) & (normals[:, 1] > -0.6)
        colors = torch.where(face[:, None], torch.tensor(WHITE) - 0.04 * normals[:, :1].abs(), colors)
    return Gaussians(
        means=torch.tensor(center) + radius * normals,
        quats=_turn_z_to(normals),
        scales=spacing * torch.tensor([1.0, 0.6, 0.5]).expand(count, 3),
        opacities=torch.full((count,), 0.9),
        colors=colors.clamp(0, 1),
    )


def _stick(
    center: tuple[float, float, float], direction: tuple[float, float, float], color: tuple[float, float, float]
) -> Gaussians:
    return Gaussians(
        means=torch.tensor([center]),
        quats=_turn_z_to(torch.nn.functional.normalize(torch.tensor([direction]), dim=-1)),
        scales=torch.tensor([[0.008, 0.016, 0.07]]),
        opacities=torch.tensor([0.95]),
        colors=torch.tensor([color]),
    )


def _cloud() -> Gaussians:
    draws = torch.Generator().manual_seed(0)
    spread = torch.randn(CLOUD_COUNT, 3, generator=draws)
    return Gaussians(
        means=torch.tensor(CLOUD_CENTER) + CLOUD_SIZE * spread.clamp(-2.5, 2.5),
        quats=torch.nn.functional.normalize(torch.randn(CLOUD_COUNT, 4, generator=draws), dim=-1),
        scales=0.010 + 0.015 * torch.rand(CLOUD_COUNT, 3, generator=draws),
        opacities=0.04 + 0.10 * torch.rand(CLOUD_COUNT, generator=draws),
        colors=torch.tensor(YELLOW).expand(CLOUD_COUNT, 3).clone(),
    )


def _turn_z_to(directions: Float[Tensor, "gaussian 3"]) -> Float[Tensor, "gaussian 4"]:
    """The shortest rotations that carry +z to unit ``directions``: (1 + cosine, z cross direction), normalised."""
    x, y, z = directions.unbind(-1)
    opposite = z < -1 + 1e-6  # any half-turn across z
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=-1)
    half_turn = torch.tensor([0.0, 1.0, 0.0, 0.0])
    return torch.nn.functional.normalize(torch.where(opposite[:, None], half_turn, quats), dim=-1)
