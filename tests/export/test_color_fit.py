"""Colours above 1: what is fitted for viewers that cut them off."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cgsgan import load_generator
from cgsgan.cameras import orbit
from cgsgan.export.color_fit import fit_colors
from cgsgan.export.scene import PRUNE_OPACITY
from cgsgan.gallery import render_views
from cgsgan.types import Gaussians
from tests.export.round_trips import random_scene


@pytest.fixture(scope="module")
def head() -> Gaussians:
    scene = load_generator().sample(3).scene(0)
    assert isinstance(scene, Gaussians)
    return scene


def test_a_fitted_head_looks_as_the_given_one_in_the_renderer(head: Gaussians) -> None:
    generator = load_generator()
    fit = fit_colors(head, dilation=generator.dilation)
    assert torch.equal(fit.scene.means, head.means)
    assert fit.scene.colors.min() >= 0
    assert fit.scene.colors.max() <= 1
    assert torch.equal(fit.scene.opacities >= PRUNE_OPACITY, head.opacities >= PRUNE_OPACITY)
    assert fit.cut == pytest.approx(34.4, abs=0.1)
    assert fit.fitted > 40.5  # 41.6
    cut = replace(head, colors=head.colors.clamp(0, 1))
    cameras = orbit(torch.tensor([-0.5, 0.6]), torch.tensor([0.1, 0.26]))
    pictures = [
        render_views(generator.renderer, scene.map(lambda tensor: tensor[None]), cameras, size=256).clamp(0, 1)
        for scene in (head, fit.scene, cut)
    ]
    errors = [(picture - pictures[0]).square().mean().item() for picture in pictures[1:]]
    assert errors[0] < errors[1] / 4  # 5.5 times less


def test_the_same_bits_for_any_number_of_threads_and_anywhere(head: Gaussians) -> None:
    bright = head.select(head.opacities > 0.3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fit_colors(bright, dilation=0.004).scene
        torch.set_num_threads(2)
        two = fit_colors(bright, dilation=0.004).scene
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one.tensors(), two.tensors()))
    with torch.inference_mode(False), torch.no_grad():  # as generators call it
        aside = fit_colors(bright.resize(50.0).move((30.0, -8.0, 5.0)), dilation=0.2)
    assert aside.fitted > aside.cut + 3


def test_what_needs_no_fit_stays(head: Gaussians) -> None:
    scene = random_scene(20)
    scene = replace(scene, colors=scene.colors.clamp(0, 1))
    fit = fit_colors(scene)
    assert fit.scene is scene
    assert fit.cut == fit.fitted == math.inf
    hidden = replace(head, colors=head.colors.clamp(0, 1).index_fill(0, head.opacities.argmin()[None], 1.5))
    fit = fit_colors(hidden)
    assert fit.cut > 60
    assert torch.equal(fit.scene.colors, hidden.colors.clamp(0, 1))
    assert torch.equal(fit.scene.scales, hidden.scales)


def test_scenes_that_cannot_be_written_are_refused(head: Gaussians) -> None:
    with pytest.raises(ValueError, match="fit_colors: expected one scene"):
        fit_colors(head.map(lambda tensor: tensor[None]))
    with pytest.raises(ValueError, match="look like logarithms"):
        fit_colors(replace(head, scales=head.scales.log()))
    with pytest.raises(ValueError, match="extra_dilation"):
        fit_colors(head, dilation=-1.0)
