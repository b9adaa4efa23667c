"""Generator of tri-planes of signed distance: its start, the decoder against plain formulas, the proposal network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from cgsgan.field_scenes import Proposer, SdfDecoder, SdfPlanes
from cgsgan.models.mapping import MappingConfig
from cgsgan.models.triplane.proposal import WEIGHT_FLOOR, ProposalConfig, ProposalNetwork
from cgsgan.models.triplane.sdf import DOUBLE_CAPACITY, SdfGenerator, SdfGeneratorConfig
from cgsgan.models.triplane.sdf_decoder import PLANE_AXES, SdfDecoderConfig, start_shape
from cgsgan.models.triplane.synthesis import Backbone, BackboneConfig
from cgsgan.rendering.plane_sampling import AXES, PlaneSampler

TINY = SdfGeneratorConfig(
    resolution=16,
    camera_conditioning=False,
    mapping=MappingConfig(z_dim=6, w_dim=5),
    backbone=BackboneConfig(resolution=16, plane_channels=4, channels=(6, 5, 4)),
    oriented_channels=3,
    decoder=SdfDecoderConfig(width=7, start_radii=(0.2, 0.3, 0.25)),
    proposal=ProposalConfig(bins=6, probe_resolution=4, channels=5, blocks=1, fine_channels=4),
)


def test_every_scene_starts_as_an_ellipsoid_with_an_outside() -> None:
    config = replace(TINY, backbone=replace(TINY.backbone, resolution=64, channels=(6, 5, 4, 4, 4)))
    scenes = SdfGenerator(config)(torch.randn(2, 6)).scenes
    sampler = PlaneSampler(scenes.planes, axes="corrected", box_size=1.0)
    a, b, c = config.decoder.start_radii
    points = torch.tensor([[0, 0, 0], [a, 0, 0], [0, -b, 0], [0, 0, c], [0.7, 0, 0], [0.1, 0.8, -0.9]])
    distances, betas, colors = scenes.decode(sampler(points.expand(2, -1, -1)))
    distances = distances[..., 0]
    assert bool((distances[:, 0] < -0.1).all())
    assert bool((distances[:, 4:] > 0.1).all()), "the zeros outside the planes must not be inside of something"
    assert float(distances[:, 1:4].abs().max()) < 2e-3  # observed 3e-4: parabolas between texels
    torch.testing.assert_close(betas, torch.full_like(betas, 0.1), atol=1e-6, rtol=0)
    assert colors.shape == (2, 6, 3)
    step = torch.tensor([[a + 0.01, 0.0, 0.0], [a - 0.01, 0.0, 0.0]])
    ahead, behind = scenes.decode(sampler(step.expand(2, -1, -1)))[0][0, :, 0]
    expected = (a * b * c) ** (1 / 3) / a  # 1 for a sphere
    assert float(ahead - behind) / 0.02 == pytest.approx(expected, abs=0.06)  # observed 0.03


def test_the_start_uses_the_axes_of_the_renderer() -> None:
    assert AXES["corrected"] == PLANE_AXES
    shape = start_shape(SdfDecoderConfig(start_radii=(0.1, 0.2, 0.4)), 8)
    assert shape.shape == (3, 1, 8, 8)
    assert bool((shape[2, 0, 0] > shape[0, 0, 0].roll(0)).logical_not().any()), "x is the tightest axis"


def test_decoder_in_float64() -> None:
    generator = SdfGenerator(TINY).double()
    decoder: Any = generator.decoder
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn_like(parameter))
    features = torch.randn(3, 5, dtype=torch.float64)
    hidden = torch.log1p(torch.exp(features[:, 1:] @ decoder.hidden.weight.mT / 2 + decoder.hidden.bias))
    raw = hidden @ decoder.out.weight.mT / math.sqrt(7) + decoder.out.bias
    m = (0.2 * 0.3 * 0.25) ** (1 / 3)
    distances = (features[:, :1] + 2) * m / 2 + 0.1 * raw[:, :1]
    start = math.log(math.exp(0.1 - 1e-4) - 1)
    betas = torch.log1p(torch.exp(raw[:, 1:2] + start)) + 1e-4
    colors = 1.002 / (1 + torch.exp(-raw[:, 2:])) - 0.001
    for ours, expected in zip(decoder(features), (distances, betas, colors), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)  # observed worst error 3e-15
    assert bool((decoder(100 * features)[1] > 1e-4).all())


def test_planes_have_blocks_of_their_own() -> None:
    generator = SdfGenerator(TINY)
    z = torch.randn(2, 6)
    before = generator(z).scenes.planes
    assert before.shape == (2, 3, 5, 16, 16)
    with torch.no_grad():
        block: Any = generator.oriented[1]
        block.conv0.weight.mul_(-1)
    changed = (generator(z).scenes.planes != before).flatten(2).any(dim=2)
    assert changed.tolist() == [[False, True, False]] * 2


def test_scenes_carry_the_networks_and_styles_make_them_again() -> None:
    generator = SdfGenerator(TINY)
    output = generator(torch.randn(2, 6), update_w_average=True)
    assert isinstance(output.scenes, SdfPlanes)
    assert isinstance(output.scenes.decode, SdfDecoder)
    assert isinstance(output.scenes.propose, Proposer)
    assert output.ws.shape == (2, generator.num_ws, 5)
    assert generator.num_ws == TINY.backbone.num_ws + 2
    assert torch.equal(generator(ws=output.ws).scenes.planes, output.scenes.planes)
    assert bool(generator.mapping.w_average.any())
    for wrong, match in (({"z": None}, "either z or ws"), ({"ws": output.ws[:, 1:]}, "expected ws of shape")):
        with pytest.raises(ValueError, match=match):
            generator(**wrong)


def test_default_has_twice_the_capacity_of_eg3d() -> None:
    def count(channels: tuple[int, ...] | None) -> int:
        with torch.device("meta"):
            backbone = Backbone(BackboneConfig(channels=channels), 512)
        return sum(p.numel() for name, p in backbone.named_parameters() if name.endswith("weight") and "conv" in name)

    assert count(DOUBLE_CAPACITY) / count(None) == pytest.approx(2.0, abs=0.15)


def test_proposal_starts_as_the_enlarged_weights() -> None:
    network = ProposalNetwork(TINY.proposal, 16)
    weights = torch.rand(2, 6, 4, 4)
    logits = network(torch.rand(2, 3, 4, 4), weights)
    assert logits.shape == (2, 6, 16, 16)
    enlarged = torch.nn.functional.interpolate(weights, (16, 16), mode="bilinear")
    torch.testing.assert_close(logits, (enlarged + WEIGHT_FLOOR).log(), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="6 bins at 4 x 4 px, got"):
        network(torch.rand(2, 3, 4, 4), weights[:, 1:])


def test_proposal_learns_what_the_weights_do_not_say() -> None:
    network = ProposalNetwork(TINY.proposal, 16)
    adam = torch.optim.Adam(network.parameters(), lr=0.02)
    weights, wanted = torch.full((1, 6, 4, 4), 1 / 6), torch.randint(6, (1, 4, 4)).repeat_interleave(4, 1)
    wanted = wanted.repeat_interleave(4, 2)
    images = torch.nn.functional.one_hot(wanted[:, ::4, ::4] % 3, 3).movedim(-1, 1).float()
    wanted = wanted % 3
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(network(images, weights), wanted)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(math.log(6), abs=1e-3)
    assert losses[-1] < 0.7  # observed 0.2


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SdfDecoderConfig(start_beta=0.0), "beta is a length > 0"),
        (lambda: SdfDecoderConfig(beta_floor=-0.1), "beta is a length > 0"),
        (lambda: SdfDecoderConfig(start_radii=(0.3, 0.3)), "three lengths"),
        (lambda: SdfDecoderConfig(start_radii=(0.3, 0.3, 0.6)), "below half of box_size"),
        (lambda: SdfDecoderConfig(distance_scale=0.0), "decoder.distance_scale"),
        (lambda: SdfDecoderConfig(features=2), "features >= 3"),
        (lambda: ProposalConfig(bins=1), "proposal.bins: expected >= 2"),
        (lambda: ProposalConfig(fine_channels=0), "proposal.fine_channels"),
        (lambda: replace(TINY, resolution=24), "never give the resolution of 24 px"),
        (lambda: replace(TINY, resolution=2), "never give the resolution of 2 px"),
        (lambda: replace(TINY, oriented_channels=0), "oriented_channels"),
        (lambda: replace(TINY, camera_conditioning=True), "camera_conditioning needs mapping.label_dim"),
    ],
)
def test_refuses_what_makes_no_generator(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
