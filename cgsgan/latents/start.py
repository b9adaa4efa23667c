"""Where an inversion starts: the best of many heads, seen from the best of many sides."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cgsgan.cameras import Cameras, orbit
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.targets import Target

YAWS = tuple(math.radians(angle) for angle in range(-60, 61, 10))
PITCHES = tuple(math.radians(angle) for angle in (-15, 0, 15))
COMPARED_SIZE = 32
"""Candidates are compared at this size, pixels."""
SCENES_AT_ONCE = 16


@torch.no_grad()
def best_styles(
    source: SceneSource, ws: Float[Tensor, "candidate num_ws w_dim"], target: Target, cameras: Cameras
) -> Float[Tensor, "num_ws w_dim"]:
    """The candidate that looks most like the target from its cameras.

    Args:
        source: styles to pictures.
        ws: candidates.
        target: views of one person.
        cameras: ``[1, view]``.
    """
    errors = _errors(source, ws, target, cameras).mean(dim=1)
    return ws[errors.argmin()]


@torch.no_grad()
def best_angles(
    source: SceneSource, ws: Float[Tensor, "candidate num_ws w_dim"], target: Target
) -> tuple[Float[Tensor, " view"], Float[Tensor, " view"], Float[Tensor, "num_ws w_dim"]]:
    """Yaw and pitch of every view, radians, and one head, from all pairs of a grid of cameras and the candidates.

    The head is the one whose best angles explain all views best.
    """
    yaw, pitch = (grid.flatten() for grid in torch.meshgrid(torch.tensor(YAWS), torch.tensor(PITCHES), indexing="ij"))
    grid = orbit(yaw, pitch)
    errors = []
    for view in range(target.views):
        one = Target(
            colors=target.colors[view : view + 1].expand(len(yaw), -1, -1, -1),
            alphas=None if target.alphas is None else target.alphas[view : view + 1].expand(len(yaw), -1, -1, -1),
            background=target.background,
        )
        errors.append(_errors(source, ws, one, grid.map(lambda t: t[None])))
    best = torch.stack(errors, dim=1).min(dim=2)  # [candidate, view]
    head = int(best.values.mean(dim=1).argmin())
    chosen: Int64[Tensor, " view"] = best.indices[head]
    return yaw[chosen], pitch[chosen], ws[head]


def _errors(source: SceneSource, ws: Tensor, target: Target, cameras: Cameras) -> Float[Tensor, "candidate view"]:
    """Mean absolute differences at a small size, on grey when the coverage is known."""
    backgrounds = torch.tensor(target.background if target.alphas is None else (0.5,) * 3).expand(target.views, 3)
    small = torch.nn.functional.interpolate(target.on(backgrounds), size=(COMPARED_SIZE,) * 2, mode="area")
    errors = []
    for part in ws.split(SCENES_AT_ONCE):
        images = source.render(part, cameras, backgrounds, size=COMPARED_SIZE)
        errors.append((images - small).abs().mean(dim=(-3, -2, -1)))
    return torch.cat(errors)
