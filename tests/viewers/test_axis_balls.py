from __future__ import annotations

from dataclasses import replace

import torch

from cgsgan.export.axes import half_turn_x
from cgsgan.types import Gaussians
from tests.viewers.axis_balls import axis_balls
from tests.viewers.pictures import FRONT, THREE_QUARTER, draw, psnr, ssim


def colored_pixel(image: torch.Tensor, scene_point: tuple[float, float, float]) -> list[float]:
    point = THREE_QUARTER.cameras.viewmats[0, 0] @ torch.tensor([*scene_point, 1.0])
    across, down, _ = (THREE_QUARTER.cameras.Ks(96, 96)[0, 0] @ point[:3] / point[2]).tolist()
    return image[:, int(down), int(across)].tolist()


def test_balls_stand_on_the_axes() -> None:
    image = draw(axis_balls(), THREE_QUARTER, 96, antialiased=False)
    red = colored_pixel(image, (0.36, 0, 0))
    green = colored_pixel(image, (0, 0.36, 0))
    blue = colored_pixel(image, (0, 0, 0.38))
    assert [color.index(max(color)) for color in (red, green, blue)] == [0, 1, 2]
    assert min(colored_pixel(image, (0.05, -0.02, 0.19))) > 0.85  # the face is white
    red, green, blue = colored_pixel(image, (-0.36, 0, 0))
    assert min(red, green) > blue + 0.2  # yellow


def test_no_turn_or_mirror_leaves_it_as_it_is() -> None:
    """What the gates of the viewers rest on: wrong axes cannot pass for right ones."""
    scene = axis_balls()
    truth = draw(scene, THREE_QUARTER, 96, antialiased=False)

    def mirrored(signs: tuple[int, int, int]) -> Gaussians:
        return replace(scene, means=scene.means * torch.tensor(signs))

    wrong = {str(signs): mirrored(signs) for signs in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1), (-1, 1, -1))}
    wrong["half-turn"] = half_turn_x(scene)
    found = {name: psnr(draw(other, THREE_QUARTER, 96, antialiased=False), truth) for name, other in wrong.items()}
    assert max(found.values()) < 22, found  # 20.2
    unturned = replace(scene, quats=torch.tensor([[1.0, 0, 0, 0]]).expand_as(scene.quats))
    assert psnr(draw(unturned, THREE_QUARTER, 96, antialiased=False), truth) < 34
    assert psnr(truth, truth) >= 100
    assert ssim(truth, truth) > 0.9999
    assert ssim(draw(half_turn_x(scene), FRONT, 96, antialiased=False), truth) < 0.8
