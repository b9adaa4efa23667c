"""Volume rendering against the plain formulas, every output and every gradient, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from cgsgan.cameras import Cameras, orbit
from cgsgan.rendering.volume import VolumeConfig, VolumeRenderer
from cgsgan.types import TriPlanes
from tests.rendering.plain_volume import pixel_ray, render_pixel

TOLERANCE = 1e-11  # observed worst error of all outputs and gradients below: 6e-13


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(5, 8), nn.Linear(8, 5)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.out(softplus(self.hidden(features)))
        return 12 * values[..., :1] + 5, values[..., 1:].sigmoid()


def crooked_cameras(batch: int, views: int) -> Cameras:
    """Unequal focal lengths, a principal point off the centre, skew."""
    cameras = orbit(torch.rand(batch, views).double() - 0.5, torch.rand(batch, views).double() * 0.4, focal=3.0)
    Ks = torch.tensor([[2.6, 0.07, 0.46], [0.0, 3.3, 0.57], [0.0, 0.0, 1.0]]).double()
    return Cameras(viewmats=cameras.viewmats, Ks_normalized=Ks.expand(batch, views, 3, 3))


@pytest.fixture
def scenes() -> TriPlanes:
    planes = (3 * torch.randn(2, 3, 5, 6, 7, dtype=torch.float64)).requires_grad_()
    return TriPlanes(planes=planes, ws=torch.zeros(2, 1, 1, dtype=torch.float64), decode=Decoder().double())


@pytest.mark.parametrize(
    ("axes", "counts", "seeded"),
    [("official", (9, 8), False), ("corrected", (9, 8), True), ("corrected", (5, 0), True), ("official", (4, 1), True)],
)
def test_pictures_and_gradients_are_the_formulas(scenes: TriPlanes, axes, counts, seeded):
    config = VolumeConfig(
        near=2.2, far=3.2, box_warp=0.9, plane_axes=axes, samples=counts[0], importance_samples=counts[1]
    )
    size, batch, views = 3, 2, 2
    cameras = crooked_cameras(batch, views)
    seeds = torch.tensor([[5, -(2**62)], [2**40 + 1, 0]])
    renderer = VolumeRenderer(config, training_size=size)
    if seeded:
        renderer = renderer.for_training(size, seeds)
    traced = renderer.trace(scenes, cameras, size)

    plain = TriPlanes(
        planes=scenes.planes.detach().clone().requires_grad_(), ws=scenes.ws, decode=copy.deepcopy(scenes.decode)
    )
    features, alphas = torch.empty_like(traced.features), torch.empty_like(traced.alphas)
    distances, depths = torch.empty_like(traced.distances), torch.empty_like(traced.depths)
    for b, v, row, column in torch.cartesian_prod(*(torch.arange(n) for n in (batch, views, size, size))).tolist():
        ray = pixel_ray(cameras.cam_to_world[b, v], cameras.Ks_normalized[b, v], column, row, size)
        seed = int(seeds[b, v]) if seeded else None
        found = render_pixel(plain.planes[b], plain.decode, ray, config, seed=seed, pixel=row * size + column)
        features[b, v, :, row, column], alphas[b, v, row, column, 0], distances[b, v, row, column, 0] = found[:3]
        depths[b, v, row, column, 0] = found[2] * ray[2]

    assert 0.15 < float(alphas.detach().mean()) < 0.95  # something is hit, something is hidden
    weight = torch.randn_like(traced.features)
    both = {"ours": (scenes, traced.features, traced.alphas, traced.distances, traced.depths)}
    both["plain"] = (plain, features, alphas, distances, depths)
    for _, colors, coverage, far, deep in both.values():
        ((colors * weight).sum() + coverage.square().sum() + far.square().sum() + deep.square().sum()).backward()
    for ours, theirs in zip(both["ours"][1:], both["plain"][1:]):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    gradients = [[s.planes.grad, *(p.grad for p in s.decode.parameters())] for s, *_ in both.values()]
    for ours, theirs in zip(*gradients):
        assert ours is not None
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * float(theirs.abs().max()))


def test_float32_stays_close_to_float64(scenes: TriPlanes):
    cameras = crooked_cameras(2, 2)
    renderer = VolumeRenderer(VolumeConfig(), training_size=16)
    with torch.no_grad():
        fine = renderer.trace(scenes, cameras, 7)
        single = TriPlanes(
            planes=scenes.planes.float(), ws=scenes.ws.float(), decode=copy.deepcopy(scenes.decode).float()
        )
        coarse = renderer.trace(single, cameras, 7)
    error = (fine.features - coarse.features).abs().amax()
    assert error < 5e-6, error  # observed 3e-7
    assert (fine.distances - coarse.distances).abs().amax() < 5e-6  # observed 7e-7
