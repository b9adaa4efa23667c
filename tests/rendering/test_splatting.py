"""Rendering scenes: orientation of pictures, backgrounds, and the dilation that belongs to the training size."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cgsgan.cameras import orbit
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.types import Gaussians


def scene_of(points: list[tuple[float, float, float]], colors: list[tuple[float, float, float]], scale: float = 0.02):
    count = len(points)
    return Gaussians(
        means=torch.tensor([points]),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4),
        scales=torch.full((1, count, 3), scale),
        opacities=torch.full((1, count), 0.95),
        colors=torch.tensor([colors]),
    )


def frontal(batch: int = 1):
    return orbit(torch.zeros(batch, 1), torch.zeros(batch, 1))


def test_up_is_up_and_the_subjects_left_is_on_the_right():
    scene = scene_of([(0.0, 0.2, 0.0), (0.2, 0.0, 0.0)], [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)])
    renderer = SplattingRenderer(SplattingConfig(), training_size=64)
    image = renderer(scene, frontal(), size=64, backgrounds=torch.zeros(1, 1, 3)).images[0, 0]
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    red, green = image[0] / image[0].sum(), image[1] / image[1].sum()
    assert (red * rows).sum() < 20  # towards the top row
    assert abs((red * columns).sum() - 31.5) < 0.5
    assert (green * columns).sum() > 44
    assert abs((green * rows).sum() - 31.5) < 0.5


def test_background_fills_what_the_scene_leaves_open():
    scene = scene_of([(0.0, 0.0, 0.0)], [(1.0, 1.0, 1.0)])
    renderer = SplattingRenderer(SplattingConfig(), training_size=64)
    color = torch.tensor([[[0.2, 0.4, 0.6]]])
    output = renderer(scene, frontal(), size=32, backgrounds=color, depth=True)
    torch.testing.assert_close(output.images[0, 0, :, 0, 0], color[0, 0])
    assert output.alphas.shape == (1, 1, 32, 32, 1)
    assert output.depths is not None
    assert abs(output.depths[0, 0, 16, 16, 0] - 2.7) < 0.01


def test_a_scene_looks_the_same_at_every_size():
    torch.manual_seed(0)
    points = (torch.rand(60, 3) * 0.4 - 0.2).tolist()
    scene = scene_of(points, torch.rand(60, 3).tolist(), scale=0.003)
    background = torch.ones(1, 1, 3)
    ours = SplattingRenderer(SplattingConfig(), training_size=64)
    small = ours(scene, frontal(), size=64, backgrounds=background).images[:, 0]
    large = ours(scene, frontal(), size=256, backgrounds=background).images[:, 0]
    unscaled = SplattingRenderer(SplattingConfig(), training_size=256)
    thin = unscaled(scene, frontal(), size=256, backgrounds=background).images[:, 0]
    same = F.mse_loss(F.avg_pool2d(large, 4), small)
    ignored = F.mse_loss(F.avg_pool2d(thin, 4), small)
    assert same < 2e-4  # observed 5e-5: 64 px samples at pixel centres, 256 px averages
    assert ignored > 20 * same
