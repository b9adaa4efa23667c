"""Every transform of the augmentation does what its name says, and gradients pass through, twice."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cgsgan.losses.augmentation import AugmentationDraws, augment, draw_augmentations


def identity(batch: int) -> AugmentationDraws:
    return draw_augmentations(torch.Generator().manual_seed(0), batch_size=batch, p=0.0)


def changed(**fields: Tensor) -> AugmentationDraws:
    return AugmentationDraws(**{**vars(identity(len(next(iter(fields.values()))))), **fields})


def pictures(batch: int = 4, size: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1


def test_nothing_drawn_is_the_identity_to_the_bit() -> None:
    images = pictures()
    assert torch.equal(augment(images, identity(4)), images)


def test_shifts_move_by_whole_pixels_and_reflect_at_the_border() -> None:
    images = pictures(1)
    moved = augment(images, changed(shift=torch.tensor([[0.125, -0.0625]])))  # 2 px right, 1 px up
    assert torch.equal(moved[..., :-1, 2:], images[..., 1:, :-2])
    assert torch.equal(moved[..., :-1, :2], images[..., 1:, :2].flip(-1))
    assert torch.equal(moved[..., -1, 2:], images[..., -1, :-2])


def test_zoom_enlarges_about_the_middle() -> None:
    size = 33
    place = torch.linspace(-1, 1, size)
    ramp = place.expand(1, 3, size, size)
    for zoom in (0.8, 1.5, 2.0):
        out = augment(ramp, changed(zoom=torch.tensor([zoom])))
        inner = slice(6, -6) if zoom < 1 else slice(None)
        # Interpolation keeps a ramp, observed 4e-7; a window of 1.25 pixels nearly, observed 0.005.
        tolerance = 0.01 if zoom < 1 else 2e-6
        torch.testing.assert_close(out[0, 0, 16, inner], (place / zoom)[inner], atol=tolerance, rtol=0)
    # Reducing averages: a checkerboard becomes nearly grey instead of aliasing. Observed 0.25.
    checker = ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1).expand(1, 3, 32, 32)
    assert augment(checker, changed(zoom=torch.tensor([0.5])))[..., 4:-4, 4:-4].abs().max() < 0.5


def test_p_is_the_share_of_pictures_that_each_transform_changes() -> None:
    count = 20_000
    draws = draw_augmentations(torch.Generator().manual_seed(2), batch_size=count, p=0.3)
    shares = [(draws.zoom != 1), (draws.shift != 0).any(1), (draws.color[:, 0, 3] != 0)]
    for share in shares:
        # Three standard deviations of a share of 20,000 are 0.0097.
        assert abs(float(share.float().mean()) - 0.3) < 0.01
    log_zoom = draws.zoom[draws.zoom != 1].log2()
    assert abs(float(log_zoom.std()) - 0.2) < 0.008
    assert abs(float(log_zoom.mean())) < 0.008
    shift = draws.shift[(draws.shift != 0).any(1)]
    assert shift.abs().max() <= 0.125
    assert abs(float(shift.std()) - 0.125 / math.sqrt(3)) < 0.002
    grey = torch.ones(3) / 3
    along = (draws.color[:, :, :3] @ grey).sum(1)  # contrast, negative where luma is reflected
    assert abs(float((along < 0).float().mean()) - 0.15) < 0.01
    log_contrast = along.abs().log2()
    log_contrast = log_contrast[log_contrast.abs() > 1e-5]
    assert abs(float(log_contrast.std()) - 0.5) < 0.02
    brightness = (draws.color[:, 0, 3] / along)[draws.color[:, 0, 3] != 0]
    assert abs(float(brightness.std()) - 0.2) < 0.008


def test_colour_maps_keep_grey_grey_and_turn_about_it() -> None:
    draws = draw_augmentations(torch.Generator().manual_seed(3), batch_size=500, p=1.0)
    matrix = draws.color[:, :, :3]
    grey = matrix @ torch.ones(3)
    assert (grey - grey.mean(1, keepdim=True)).abs().max() < 1e-5  # observed 2e-6
    # In the plane across grey a matrix is contrast * saturation times a rotation: both singular values are equal.
    plane = torch.tensor([[1.0, -1, 0], [1, 1, -2]]) / torch.tensor([[2.0], [6.0]]).sqrt()
    values = torch.linalg.svdvals((plane @ matrix @ plane.T).double())
    assert (values[:, 0] / values[:, 1] - 1).abs().max() < 1e-4  # observed 5e-6
    angles = torch.atan2((plane @ matrix @ plane.T)[:, 1, 0], (plane @ matrix @ plane.T)[:, 0, 0])
    assert abs(float(angles.std()) - math.pi / math.sqrt(3)) < 0.15


def test_gradients_pass_twice() -> None:
    draws = draw_augmentations(torch.Generator().manual_seed(4), batch_size=1, p=1.0)
    images = pictures(1, size=4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, draws), (images,))
    assert torch.autograd.gradgradcheck(lambda x: augment(x, draws).pow(3), (images,))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_the_same_numbers_are_drawn_whatever_p_is(p: float) -> None:
    random = torch.Generator().manual_seed(5)
    draw_augmentations(random, batch_size=3, p=p)
    other = torch.Generator().manual_seed(5)
    draw_augmentations(other, batch_size=3, p=0.25)
    assert torch.equal(random.get_state(), other.get_state())
