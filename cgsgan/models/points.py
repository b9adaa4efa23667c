"""The learnable point cloud whose points are the tokens of the transformer, and its input features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.layers import normalize_second_moment


@dataclass(frozen=True, kw_only=True)
class PointsConfig:
    """The point cloud.

    Attributes:
        count: points, which are the tokens.
        start: ``shell`` puts every point at root mean square coordinate ``radius`` (a sphere of sqrt(3)
            radius), as published; ``ball`` fills a ball of that radius evenly, which suits small nets.
        radius: world units, before the tanh that keeps points inside the unit box.
        features: the half of the input that is not sin(Linear(P)). ``lines``: one learned line of features
            per axis, read at the coordinate; ``tokens``: free numbers per point.
        line_axis: ``corrected`` reads the lines along the coordinate. ``official`` reproduces the published
            networks, which index the wrong axis of the table: only its two middle cells are alive, weighted
            by 1 - |P| / 2.
        line_cells: cells per line.
    """

    count: int = 512
    start: Literal["shell", "ball"] = "shell"
    radius: float = 0.3
    features: Literal["lines", "tokens"] = "lines"
    line_axis: Literal["corrected", "official"] = "corrected"
    line_cells: int = 512

    def __post_init__(self) -> None:
        if self.count < 2 or self.radius <= 0 or self.line_cells < 2:
            raise ValueError(f"points: expected count >= 2, radius > 0 and line_cells >= 2, got {self}")


def sample_shell(count: int, radius: float) -> Float[Tensor, "count 3"]:
    """Points in random directions with root mean square coordinate ``radius``."""
    return normalize_second_moment(torch.randn(count, 3)) * radius


def sample_ball(count: int, radius: float) -> Float[Tensor, "count 3"]:
    """Points spread evenly in a ball."""
    directions = functional.normalize(torch.randn(count, 3), dim=-1)
    return directions * (radius * torch.rand(count, 1) ** (1 / 3))


class Points(nn.Module):
    """Positions and input features of the tokens; the same for every latent.

    Args:
        config: the point cloud.
        width: channels of the features.
    """

    def __init__(self, config: PointsConfig, width: int) -> None:
        super().__init__()
        self.config = config
        sample = sample_shell if config.start == "shell" else sample_ball
        self.xyz = nn.Parameter(sample(config.count, config.radius))
        free = width // 2
        self.frequencies = nn.Linear(3, width - free)
        nn.init.uniform_(self.frequencies.weight, -math.sqrt(3), math.sqrt(3))
        shape = (3, free, config.line_cells) if config.features == "lines" else (config.count, free)
        self.table = nn.Parameter(torch.randn(shape))

    def forward(self) -> tuple[Float[Tensor, "point 3"], Float[Tensor, "point width"]]:
        """Positions in (-1, 1) and features, sin(Linear(P)) first."""
        with torch.autocast(self.xyz.device.type, enabled=False):
            positions = self.xyz.tanh()
            free = self.table if self.config.features == "tokens" else self._read_lines(positions)
            return positions, torch.cat([self.frequencies(positions).sin(), free], dim=-1)

    def _read_lines(self, positions: Float[Tensor, "point 3"]) -> Float[Tensor, "point free"]:
        """Linear interpolation in each axis' line, cells spread over (-1, 1), summed over the axes."""
        coordinate, zero = positions.t(), torch.zeros_like(positions).t()
        order = (coordinate, zero) if self.config.line_axis == "corrected" else (zero, coordinate)
        grid = torch.stack(order, dim=-1)[:, None]
        lines = functional.grid_sample(self.table[:, :, None], grid, align_corners=False)
        return lines.sum(dim=0).squeeze(1).t() / math.sqrt(3)
