"""Few samples against many: a perfect proposal comes close, a wrong one does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cgsgan.cameras import orbit
from cgsgan.models.triplane.proposal import ProposalConfig
from cgsgan.models.triplane.sdf import SdfGenerator
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.rendering.robust_settings import RobustConfig
from cgsgan.rendering.sampler_audit import audit_sampler
from tests.models.triplane.test_sdf import TINY


def test_few_samples_in_the_right_places_show_what_many_show() -> None:
    torch.manual_seed(0)
    generator = SdfGenerator(replace(TINY, proposal=ProposalConfig(bins=24, probe_resolution=8, channels=4, blocks=0)))
    scenes = generator(torch.randn(2, 6)).scenes
    front = torch.zeros(2, 1)
    cameras = orbit(front, front)
    renderer = RobustRenderer(RobustConfig(bins=24, probe_resolution=8, samples=16), training_size=16)
    astray = replace(scenes, propose=lambda images, weights: -20 * scenes.propose(images, weights))
    found = [audit_sampler(renderer, one, cameras, size=16, factor=8) for one in (scenes, astray)]
    right, wrong = (one["sampler_psnr"] for one in found)
    assert right > 35  # observed 43
    assert wrong < right - 10
    even, many = (
        renderer.with_sampler("uniform", count)(scenes, cameras, size=16, backgrounds=torch.ones(2, 1, 3)).images
        for count in (16, 128)
    )
    psnr = float(-10 * (even.clamp(0, 1) - many.clamp(0, 1)).square().mean().log10().detach())
    assert [one["uniform_psnr"] for one in found] == pytest.approx([psnr, psnr])  # nobody proposes where those are
    with pytest.raises(ValueError, match="a factor of at least 2, got 1"):
        audit_sampler(renderer, scenes, cameras, size=16, factor=1)
