"""Start positions and input features of the tokens."""

from __future__ import annotations

import math

import pytest
import torch

from cgsgan.models.points import Points, PointsConfig, sample_ball, sample_shell
from tests.models.plain_generator import line_features


def test_shell_has_equal_root_mean_square() -> None:
    xyz = sample_shell(200, 0.3)
    torch.testing.assert_close(xyz.square().mean(dim=1).sqrt(), torch.full((200,), 0.3))
    assert xyz.mean(dim=0).norm() < 0.1


def test_ball_is_filled_evenly() -> None:
    radii = sample_ball(4000, 0.33).norm(dim=1)
    assert radii.max() <= 0.33
    # half of the volume lies inside 0.5^(1/3) of the radius; 4000 samples: standard deviation 0.008
    assert (radii < 0.33 * 0.5 ** (1 / 3)).float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("official", [False, True])
def test_line_features(official: bool) -> None:
    config = PointsConfig(count=40, line_axis="official" if official else "corrected", line_cells=16)
    points = Points(config, 10).double()
    with torch.no_grad():
        points.xyz.mul_(6)  # reach the ends of the lines, where cells fade to zero
    positions, features = points()
    torch.testing.assert_close(positions, torch.tanh(points.xyz))
    assert positions.abs().max() > 1 - 1 / 16
    waves = torch.sin(positions @ points.frequencies.weight.T + points.frequencies.bias)
    torch.testing.assert_close(features[:, :5], waves)
    # observed worst error 2e-16
    expected = line_features(points.table, positions, official=official)
    torch.testing.assert_close(features[:, 5:], expected, atol=1e-12, rtol=0)


def test_official_axis_leaves_two_cells_alive() -> None:
    points = Points(PointsConfig(count=8, line_axis="official"), 8)
    points()[1].sum().backward()
    assert points.table.grad is not None
    alive = points.table.grad.abs().sum(dim=(0, 1)).nonzero().flatten().tolist()
    assert alive == [255, 256]
    corrected = Points(PointsConfig(count=512), 8)
    corrected()[1].sum().backward()
    assert corrected.table.grad is not None
    # the shell of radius 0.52 spans half of the line
    assert (corrected.table.grad.abs().sum(dim=(0, 1)) > 0).sum() > 200


def test_token_features() -> None:
    points = Points(PointsConfig(count=6, features="tokens"), 9)
    features = points()[1]
    assert features.shape == (6, 9)
    torch.testing.assert_close(features[:, 5:], points.table)


def test_frequency_initialisation() -> None:
    linear = Points(PointsConfig(), 512).frequencies
    assert linear.weight.abs().max() <= math.sqrt(3)
    assert linear.weight.std().item() == pytest.approx(1, rel=0.1)
    assert linear.bias.abs().max() <= 1 / math.sqrt(3)


def test_errors() -> None:
    with pytest.raises(ValueError, match="count >= 2"):
        PointsConfig(count=1)
