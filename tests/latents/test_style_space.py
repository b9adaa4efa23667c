"""Whitened styles and directions in them."""

import pytest
import torch
from torch import Tensor

from cgsgan.latents.directions import attribute_direction, principal_direction
from cgsgan.latents.style_space import SMALLEST_SPREAD, StyleSpace

GENERATOR = torch.Generator().manual_seed(1)
MIX = torch.linalg.qr(torch.randn(4, 4, generator=GENERATOR)).Q * torch.tensor([3.0, 1.0, 0.5, 1e-6])[:, None]
OFFSET = torch.tensor([1.0, -2.0, 0.0, 3.0])


def mapping(z: Tensor) -> Tensor:
    """A linear one, whose principal axes are the rows of MIX."""
    return (OFFSET + z @ MIX)[:, None].expand(-1, 2, -1)


@pytest.fixture(scope="module")
def space() -> StyleSpace:
    return StyleSpace.of(mapping, 4, samples=20000)


def test_the_axes_of_a_linear_mapping_are_found(space: StyleSpace):
    torch.testing.assert_close(space.mean, OFFSET, atol=0.08, rtol=0)  # 3 / sqrt(20000) is 0.02
    assert space.spreads[:3].tolist() == pytest.approx([3, 1, 0.5], rel=0.02)
    assert float(space.spreads[3]) == pytest.approx(SMALLEST_SPREAD * float(space.spreads[0]))
    for index in range(3):
        cosine = torch.nn.functional.cosine_similarity(space.axes[index], MIX[index], dim=0)
        assert abs(float(cosine)) > 0.999
        torch.testing.assert_close(principal_direction(space, index).norm(), space.spreads[index])
    with pytest.raises(ValueError, match="expected 0 to 3, got 4"):
        principal_direction(space, 4)


def test_coordinates_are_white_and_lead_back(space: StyleSpace):
    styles = mapping(torch.randn(5000, 4, generator=torch.Generator().manual_seed(2)))[:, 0]
    coordinates = space.to_coordinates(styles)
    assert coordinates[:, :3].std(dim=0).tolist() == pytest.approx([1, 1, 1], abs=0.05)
    torch.testing.assert_close(space.to_styles(coordinates), styles, atol=1e-4, rtol=0)  # observed 2e-6


def test_a_direction_raises_its_figure_by_one_deviation(space: StyleSpace):
    z = torch.randn(4000, 4, generator=torch.Generator().manual_seed(3))
    styles, values = mapping(z)[:, 0], 10 * z[:, 1] - 5 * z[:, 2]
    direction = attribute_direction(space, styles, values)
    expected = (10 * MIX[1] - 5 * MIX[2]) / 125 * float(values.std())
    torch.testing.assert_close(direction, expected, atol=0.03, rtol=0)  # observed 0.008
    with pytest.raises(ValueError, match="the same value"):
        attribute_direction(space, styles, torch.ones(4000))


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 4 samples"):
        StyleSpace.of(mapping, 4, samples=3)
