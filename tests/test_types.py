"""Editing scenes of Gaussians: what the picture of an edited scene must be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cgsgan.cameras import Cameras, orbit
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.types import Gaussians, as_batch

FRONT = orbit(torch.zeros(1, 1), torch.zeros(1, 1))


def blobs(count: int = 12, batch: tuple[int, ...] = ()) -> Gaussians:
    draws = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*batch, count, *shape, generator=draws)

    return Gaussians(
        means=uniform(3) * 0.4 - 0.2,
        quats=uniform(4) - 0.5,
        scales=uniform(3) * 0.03 + 0.005,
        opacities=uniform() * 0.8 + 0.1,
        colors=uniform(3),
    )


def picture(scene: Gaussians, cameras: Cameras = FRONT) -> torch.Tensor:
    renderer = SplattingRenderer(SplattingConfig(), training_size=48)
    return renderer(as_batch(scene), cameras, size=48, backgrounds=torch.ones(1, 1, 3)).images


def test_turning_the_head_is_turning_the_camera_the_other_way():
    scene = blobs()
    angle = torch.tensor([[0.6]])
    seen = picture(scene, orbit(angle, torch.zeros(1, 1)))
    turned = picture(scene.rotate((0, -2, 0), math.degrees(0.6)))
    torch.testing.assert_close(turned, seen, atol=2e-5, rtol=0)  # observed 2.4e-6
    whole_turn = scene.rotate((1, 2, -1), 120).rotate((1, 2, -1), 240.0)
    torch.testing.assert_close(picture(whole_turn), picture(scene), atol=2e-5, rtol=0)
    torch.testing.assert_close(scene.rotate((0, 1, 0), 90).means[0, 0], scene.means[0, 2], atol=1e-6, rtol=0)


def test_a_head_twice_as_large_and_as_far_looks_the_same():
    scene = blobs()
    far = orbit(torch.zeros(1, 1), torch.zeros(1, 1), radius=5.4)
    torch.testing.assert_close(picture(scene.resize(2), far), picture(scene), atol=2e-5, rtol=0)


def test_moving_the_head_is_moving_the_camera():
    scene, offset = blobs(), (0.05, -0.1, 0.2)
    moved_camera = FRONT.map(torch.clone)
    moved_camera.viewmats[..., :3, 3] += FRONT.viewmats[0, 0, :3, :3] @ torch.tensor(offset)
    torch.testing.assert_close(picture(scene.move(offset)), picture(scene, moved_camera), atol=2e-5, rtol=0)


def test_what_is_cropped_and_what_is_left_make_the_whole():
    scene = blobs()
    low, high = (-0.5, -0.5, -0.5), (0.5, 0.0, 0.5)
    lower = scene.crop(low, high)
    upper = scene.select(scene.means[:, 1] > 0)
    assert 0 < lower.count < scene.count
    assert bool((lower.means[:, 1] <= 0).all())
    both = Gaussians.join([lower, upper])
    assert both.count == scene.count
    torch.testing.assert_close(picture(both), picture(scene), atol=1e-6, rtol=0)
    assert torch.equal(scene.select(torch.tensor([2, 0])).colors, scene.colors[[2, 0]])


def test_batches_keep_their_scenes():
    batch = blobs(batch=(2,))
    kept = batch.select(torch.arange(12) < 5)
    assert kept.opacities.shape == (2, 5)
    joined = Gaussians.join([batch, kept.recolor(lambda rgb: 1 - rgb)])
    assert joined.scales.shape == (2, 17, 3)
    assert torch.equal(joined.scene(1).colors[12:], 1 - batch.colors[1, :5])
    for edited in (batch.move((0, 0, 1)), batch.rotate((0, 1, 0), 30), batch.resize(0.5)):
        alone = edited.scene(1)
        assert alone.count == 12
    torch.testing.assert_close(batch.rotate((0, 1, 0), 30).scene(1).means, batch.scene(1).rotate((0, 1, 0), 30).means)


def test_edits_leave_the_scene_alone_and_pass_gradients():
    scene = blobs()
    before = [tensor.clone() for tensor in scene.tensors()]
    leaf = replace(scene, means=scene.means.clone().requires_grad_())
    edited = leaf.resize(2.0).rotate((0, 0, 1), 90).move((1, 0, 0)).select(torch.arange(12) < 3)
    edited.means.sum().backward()
    assert leaf.means.grad is not None
    torch.testing.assert_close(leaf.means.grad[:3], torch.tensor([2.0, -2.0, 2.0]).expand(3, 3))
    assert not leaf.means.grad[3:].any()
    assert all(torch.equal(now, then) for now, then in zip(scene.tensors(), before))


def test_edits_that_make_no_sense_are_refused():
    scene = blobs()
    for action, message in (
        (lambda: blobs(batch=(2,)).crop((0, 0, 0), (1, 1, 1)), r"use \.scene\(i\)"),
        (lambda: scene.crop((0, 0), (1, 1, 1)), "crop: expected three finite numbers"),
        (lambda: scene.move((0, math.nan, 0)), "move: expected three finite numbers"),
        (lambda: scene.resize(0), "factor > 0, got 0"),
        (lambda: scene.resize(math.inf), "factor > 0, got inf"),
        (lambda: scene.rotate((0, 0, 0), 30), "axis with a length"),
        (lambda: scene.select(torch.ones(3, dtype=torch.bool)), "mask of 12, one for each, got 3"),
        (lambda: scene.recolor(lambda rgb: rgb[:3]), "a colour for each Gaussian"),
    ):
        with pytest.raises(ValueError, match=message):
            action()
