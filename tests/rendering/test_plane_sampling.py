"""Reading planes: the table of the CPU against ``grid_sample``, the axes on a field where they matter."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import grid_sample

from cgsgan.rendering.plane_sampling import AXES, PlaneSampler


def by_grid_sample(planes: torch.Tensor, points: torch.Tensor, axes: str, box: float) -> torch.Tensor:
    total = 0.0
    for plane, pair in enumerate(AXES[axes]):
        grid = (points * 2 / box)[..., pair].unsqueeze(2)
        total = total + grid_sample(planes[:, plane], grid, padding_mode="zeros", align_corners=False)[..., 0].mT
    return torch.as_tensor(total) / 3


@pytest.mark.parametrize("axes", ["official", "corrected"])
def test_features_and_gradients_are_those_of_grid_sample(axes):
    planes = torch.randn(2, 3, 4, 5, 9, dtype=torch.float64)
    points = torch.rand(2, 50, 3, dtype=torch.float64) * 2.4 - 1.2  # the box is 1.5 wide: a part lies outside
    points[0, 0], points[0, 1], points[0, 2] = 0.75, -0.75, 1e9
    inputs = [[planes.clone().requires_grad_(), points.clone().requires_grad_()] for _ in range(2)]
    ours = PlaneSampler(inputs[0][0], axes=axes, box_size=1.5)(inputs[0][1])
    theirs = by_grid_sample(*inputs[1], axes, 1.5)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)  # observed 1e-15
    for a, b in zip(*inputs):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)  # observed 2e-14 of 20


def test_gradients_are_spread_in_blocks(monkeypatch):
    monkeypatch.setattr("cgsgan.rendering.plane_sampling.ROWS_AT_ONCE", 7)
    test_features_and_gradients_are_those_of_grid_sample("corrected")


def test_the_other_path_gives_the_same(monkeypatch):
    planes, points = torch.randn(3, 3, 4, 6, 5), torch.rand(2, 40, 3) * 1.4 - 0.7
    table = PlaneSampler(planes, axes="corrected", box_size=1.0)
    images = PlaneSampler(planes, axes="corrected", box_size=1.0)
    images.on_cpu, images.planes = False, planes.flatten(0, 1)
    torch.testing.assert_close(table(points, 1), images(points, 1), rtol=0, atol=2e-6)  # observed 2e-7


def test_only_the_corrected_axes_tell_y_and_z_together():
    """A feature that is 1 where y and z are both positive needs a plane of y and z."""
    planes = torch.zeros(1, 3, 1, 32, 32)
    planes[0, 2, 0, 16:, 16:] = 3  # columns and rows of the third plane beyond its middle
    y, z = torch.meshgrid(torch.tensor([-0.3, 0.3]), torch.tensor([-0.3, 0.3]), indexing="ij")
    for x in (-0.2, 0.2):
        points = torch.stack([torch.full_like(y, x), y, z], dim=-1).view(1, 4, 3)
        corrected = PlaneSampler(planes, axes="corrected", box_size=1.0)(points).flatten()
        assert corrected.tolist() == [0, 0, 0, 1]  # at y = z = 0.3, whatever x is
        official = PlaneSampler(planes, axes="official", box_size=1.0)(points).flatten()
        assert official.tolist() == ([0, 1, 0, 1] if x > 0 else [0, 0, 0, 0])  # z and x, whatever y is


def test_rows_of_front_and_side_are_heights():
    """The same row in both planes is the same height, so that one convolution sees one part of a head in both."""
    planes = torch.zeros(1, 3, 1, 32, 32)
    planes[0, ::2, 0, 20] = 1.5
    points = torch.rand(1, 200, 3) - 0.5
    points[:, :, 1] = (20.5 / 32) - 0.5
    points = points.clamp(-0.45, 0.45)
    features = PlaneSampler(planes, axes="corrected", box_size=1.0)(points)
    torch.testing.assert_close(features, torch.ones_like(features), rtol=0, atol=1e-5)
