"""The memory bound of volume rendering: it holds for any number of samples, rays and scenes, with gradients too."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from cgsgan.cameras import orbit
from cgsgan.rendering import VolumeConfig, VolumeRenderer
from cgsgan.types import TriPlanes
from tests.rendering.live_storage import LiveStorage

POINTS = 2048
UNBOUNDED = 1 << 30


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 32), nn.Linear(32, 9)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.out(softplus(self.hidden(features)))
        return values[..., :1], values[..., 1:].sigmoid()


def peak_bytes(*, samples: int, size: int = 8, batch: int = 1, points: int = POINTS, training: bool) -> int:
    """The most bytes alive while pictures are rendered and, in training, their gradients are made."""
    torch.manual_seed(0)
    planes = torch.randn(batch, 3, 8, 12, 12).requires_grad_(training)
    scenes = TriPlanes(planes=planes, ws=torch.zeros(batch, 1, 1), decode=Decoder().requires_grad_(training))
    config = VolumeConfig(samples=samples, importance_samples=samples, points_at_once=points)
    renderer = VolumeRenderer(config, size)
    cameras, backgrounds = orbit(torch.zeros(batch, 1), torch.zeros(batch, 1)), torch.zeros(batch, 1, 3)
    with torch.set_grad_enabled(training), LiveStorage() as memory:
        if training:
            renderer = renderer.for_training(size, torch.arange(batch)[:, None])
        picture = renderer(scenes, cameras, size=size, backgrounds=backgrounds, depth=True)
        if training:
            picture.images.square().mean().backward()
    return memory.peak


@pytest.mark.parametrize("training", [False, True])
def test_memory_does_not_grow_with_the_samples(training: bool):
    few, many = (peak_bytes(samples=s, training=training) for s in (16, 256))
    assert many < 1.2 * few, (few, many)  # observed: 1.01 times without gradients, 1.12 with them, from 1 to 16 chunks
    unbounded = peak_bytes(samples=256, points=UNBOUNDED, training=training)
    assert unbounded > 8 * many  # 16 chunks; without the bound they would all be alive


@pytest.mark.parametrize("training", [False, True])
def test_of_rays_and_scenes_only_what_they_are_made_of_is_kept(training: bool):
    base = peak_bytes(samples=64, size=4, training=training)
    rays = peak_bytes(samples=64, size=16, training=training)
    scenes = peak_bytes(samples=64, size=4, batch=15, training=training)
    chunk = peak_bytes(samples=64, size=4, points=UNBOUNDED, training=training)  # 16 rays are one chunk
    assert chunk <= base
    # 240 more rays: what is kept of each is its geometry, keys, features, coverage, distances, and their gradients.
    per_ray = (rays - base) / 240
    assert per_ray < 800, per_ray  # observed 57 without gradients, 662 with them; a ray of the chunk has 30000
    # 14 more scenes: their planes as a table (and its gradient, twice while it is summed), and 16 rays each.
    table = 3 * 14 * 14 * 8 * 4
    assert (scenes - base) / 14 < 4 * table + 16 * 800, (scenes - base) / 14  # observed 31000 and 76000


def test_gradients_of_chunks_are_those_of_the_whole():
    """Recomputing must not change what is computed."""
    gradients = []
    for points in (POINTS, UNBOUNDED):
        torch.manual_seed(0)
        planes = torch.randn(2, 3, 8, 12, 12).requires_grad_()
        decoder = Decoder()
        config = VolumeConfig(samples=16, importance_samples=16, points_at_once=points)
        renderer = VolumeRenderer(config, 9).for_training(9, torch.tensor([[3], [4]]))
        scenes = TriPlanes(planes=planes, ws=torch.zeros(2, 1, 1), decode=decoder)
        cameras = orbit(torch.zeros(2, 1), torch.zeros(2, 1))
        renderer(scenes, cameras, size=9, backgrounds=torch.zeros(2, 1, 3)).images.square().sum().backward()
        gradients.append([planes.grad, *(p.grad for p in decoder.parameters())])
    for parts, whole in zip(*gradients):
        torch.testing.assert_close(parts, whole, rtol=0, atol=2e-6 * float(whole.abs().max()))  # observed 3e-7
