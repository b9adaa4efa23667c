"""Ways between latents: from one head to another, through many and back to the first."""

from __future__ import annotations

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def closed_walk(stations: Float[Tensor, "station *row w_dim"], frames: int) -> Float[Tensor, "frame *row w_dim"]:
    """A smooth loop through styles: a closed Catmull-Rom spline (centripetal forms are not needed between points that
    lie about equally far apart, as random styles do).

    Args:
        stations: styles to pass through, at least 2; station k is reached exactly at frame k * frames / stations when
            that is a whole number.
        frames: of the whole loop; the last leads back to the first without repeating it.

    Raises:
        ValueError: for fewer than two stations or one frame.
    """
    count = len(stations)
    if count < 2 or frames < 1:
        raise ValueError(f"walk: expected at least 2 stations and 1 frame, got {count} and {frames}")
    position = torch.arange(frames, dtype=torch.float64) * (count / frames)
    first = position.floor().long().clamp_max(count - 1)
    t = (position - first).to(stations.dtype).view(-1, *[1] * (stations.ndim - 1))
    before, start, end, after = (stations[(first + offset) % count] for offset in (-1, 0, 1, 2))
    slopes = (end - before) / 2, (after - start) / 2
    return (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * slopes[0]
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * slopes[1]
    )


def slerp(
    first: Float[Tensor, "*batch z_dim"], second: Float[Tensor, "*batch z_dim"], share: float
) -> Float[Tensor, "*batch z_dim"]:
    """Between latents z along a great circle (Shoemake 1985), which keeps their length typical of N(0, 1).

    Args:
        first: latents, none of them 0.
        second: likewise.
        share: 0 gives the first, 1 the second.
    """
    a, b = torch.nn.functional.normalize(first, dim=-1), torch.nn.functional.normalize(second, dim=-1)
    angle = torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True)) * 2
    radius = first.norm(dim=-1, keepdim=True).lerp(second.norm(dim=-1, keepdim=True), share)
    sine = angle.sin()
    straight = sine < 1e-4  # nearly equal, or opposite, where every great circle is as good
    safe = torch.where(straight, torch.ones_like(sine), sine)
    around = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / safe
    line = torch.nn.functional.normalize(a.lerp(b, share), dim=-1)
    return radius * torch.where(straight & (angle < math.pi / 2), line, around)


def lerp_weights(first: nn.Module, second: nn.Module, share: float) -> nn.Module:
    """A network between two that were tuned from the same one: theirs stay close enough for a straight line.

    Args:
        first: at share 0; not changed.
        second: at share 1; the same architecture.
        share: in [0, 1].
    """
    between = copy.deepcopy(first)
    theirs = second.state_dict()
    between.load_state_dict(
        {
            name: value.lerp(theirs[name], share) if value.is_floating_point() else value
            for name, value in first.state_dict().items()
        }
    )
    return between


def mix_styles(
    first: Float[Tensor, "batch num_ws w_dim"], second: Float[Tensor, "batch num_ws w_dim"], rows: slice
) -> Float[Tensor, "batch num_ws w_dim"]:
    """``first`` with these style rows of ``second``: early rows are coarse (shape), late ones fine (Karras et al. 2019,
    section 3.1).
    """
    mixed = first.clone()
    mixed[:, rows] = second[:, rows]
    return mixed
