"""Tri-planes in training: gradients over views, dual discrimination, posing, density, a growing neural resolution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import interpolate

from cgsgan.cameras import Cameras
from cgsgan.losses.adversarial import generator_loss
from cgsgan.models.triplane.generator import TriPlaneGenerator
from cgsgan.rendering.volume import VolumeRenderer
from cgsgan.training.accumulation import AccumulatedSteps
from cgsgan.training.augmentation import AugmentationConfig, make_augmenter
from cgsgan.training.batches import Batches
from cgsgan.training.checkpoint import find_generator, read_training_state
from cgsgan.training.draws import draw_density, draw_fakes, step_generator, tell_cameras
from cgsgan.training.generator_file import read_generator
from cgsgan.training.optimization import generator_updater
from cgsgan.training.schedules import blur, blur_sigma, neural_resolution, swap_probability
from tests.tiny_experiment import TinyData, tiny_draws, tiny_planes, tiny_reals, tiny_steps, tiny_trainer

SEEN = 10


def gradients(network: torch.nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def compare(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-12, name


@pytest.mark.parametrize("keep_view", [None, 1])
def test_the_gradient_of_planes_and_of_the_networks_they_carry_is_that_of_the_mean_over_views(keep_view: int | None):
    config, views = tiny_planes(batch_size=4), 3
    draws = tiny_draws(config, views, torch.float64)
    steps = tiny_steps(config, torch.float64)
    steps.generator_gradients(draws, SEEN, keep_view=keep_view)
    ours = gradients(steps.generator)

    loss = config.training.loss
    sigma = blur_sigma(SEEN, initial=loss.blur_sigma, fade_kimg=loss.blur_fade_kimg)
    assert sigma > 0.5
    scenes = steps.generator(draws.z, camera_labels=draws.told_labels).scenes
    losses = []
    for view in range(views):
        labels = draws.camera_labels[:, view]
        assert isinstance(steps.renderer, VolumeRenderer)
        assert draws.jitter_seeds is not None
        rendered = steps.renderer.for_training(8, draws.jitter_seeds[:, view, None])(
            scenes, Cameras.from_labels(labels[:, None]), size=32, backgrounds=draws.backgrounds[:, view, None]
        )
        assert rendered.raw_images is not None
        seen = [blur(images[:, 0] * 2 - 1, sigma) for images in (rendered.images, rendered.raw_images)]
        losses.append(generator_loss(steps.discriminator(seen[0], labels, raw_images=seen[1])))
    torch.stack(losses).mean().backward()
    theirs = gradients(steps.generator)
    for part in ("mapping", "backbone", "decoder", "superresolution"):
        assert any(name.startswith(part) and gradient.norm() > 0 for name, gradient in theirs.items()), part
    compare(ours, theirs, 1e-5)


def test_parts_of_a_batch_give_the_gradients_of_the_whole():
    config = tiny_planes()
    found = []
    for parts in (1, 2):
        steps = tiny_steps(config, torch.float64)
        made = steps if parts == 1 else AccumulatedSteps(steps, parts, None)
        _, fakes = made.generator_gradients(tiny_draws(config, 2, torch.float64), SEEN, keep_view=1)
        taken = gradients(steps.generator)
        assert fakes is not None
        assert fakes.raw_images is not None
        made.discriminator_gradients(fakes, tiny_reals(config, torch.float64), SEEN)
        taken |= {f"D {name}": value for name, value in gradients(steps.discriminator).items()}
        made.penalty_gradients(tiny_reals(config, torch.float64), SEEN, fakes=fakes)
        taken |= {f"R1 {name}": value for name, value in gradients(steps.discriminator).items()}
        random = step_generator(0, 0)
        told = tiny_draws(config, 1, torch.float64).told_labels
        draws = draw_density(random, told, batch_size=8, z_dim=8, planes=config.training.planes).map(Tensor.double)
        made.density_gradients(draws)
        taken |= {f"density {name}": value for name, value in gradients(steps.generator).items()}
        found.append(taken)
    assert any(name.startswith("density backbone") for name in found[0])
    compare(found[1], found[0], 1e-5)


def test_the_penalty_is_on_both_pictures_and_the_raw_real_one_is_the_real_one_made_smaller():
    config = tiny_planes()
    config = replace(config, training=replace(config.training, loss=replace(config.training.loss, blur_fade_kimg=0.0)))
    steps, reals = tiny_steps(config), tiny_reals(config)
    stats = steps.penalty_gradients(reals, 0)
    ours = gradients(steps.discriminator)
    images = (reals.images * 2 - 1).requires_grad_()
    raw = interpolate(reals.images * 2 - 1, (8, 8), mode="bilinear", antialias=True).requires_grad_()
    logits = steps.discriminator(images, reals.camera_labels, raw)
    parts = torch.autograd.grad(logits.sum(), [images, raw], create_graph=True)
    squares = [part.square().sum(dim=(1, 2, 3)) for part in parts]
    assert min(float(part.detach().mean()) for part in squares) > 0
    penalty = (squares[0] + squares[1]).mean()
    (penalty * 0.5 * 1.0 * 2).backward()
    # Observed worst: 1e-6, from the order of the range conversion and the resizing.
    torch.testing.assert_close(stats["r1_penalty"], penalty.detach(), rtol=1e-5, atol=0)
    compare(ours, gradients(steps.discriminator), 1e-4)


def test_scenes_are_single_precision_under_autocast():
    config = tiny_planes()
    steps, draws = tiny_steps(config), tiny_draws(config, 1)
    exact = steps.generator(draws.z, camera_labels=draws.told_labels).scenes
    steps.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    rounded = steps._generate(draws).scenes
    assert [tensor.dtype for tensor in rounded.tensors()] == [torch.float32, torch.float32]
    assert 0 < (rounded.planes - exact.planes).abs().max() < 0.1  # type: ignore[union-attr]
    assert torch.equal(rounded.ws, exact.ws)  # type: ignore[union-attr]


def test_both_pictures_are_augmented_alike():
    augmenter = make_augmenter(
        AugmentationConfig(mode="fixed", p=1.0, max_p=1.0), seed=3, batch_size=8, accelerator=Accelerator(cpu=True)
    )
    assert augmenter is not None
    images = torch.rand(8, 3, 32, 32)
    augmenter.begin_step(4)
    alone = augmenter(images)
    augmenter.begin_step(4)
    both = augmenter(torch.cat([images, images.flip(0)], dim=1))
    augmenter.begin_step(4)
    other = augmenter(images.flip(0))
    torch.testing.assert_close(both, torch.cat([alone, other], dim=1), rtol=0, atol=1e-6)
    assert (alone - images).abs().max() > 0.1

    config = tiny_planes()
    steps = tiny_steps(config)
    steps.augment, seen = augmenter, []
    steps.discriminator.forward = lambda *pictures: seen.append(pictures) or torch.zeros(8, 1, requires_grad=True)
    augmenter.begin_step(4)
    steps._judged(tiny_reals(config), 10**6)
    image, _, raw = seen[0]
    assert image.shape == raw.shape == (8, 3, 32, 32)  # the raw one has been moved by the same share of its size
    # What is left between them is the fine detail that 12 px cannot hold.
    plain, small = tiny_reals(config).images, interpolate(tiny_reals(config).images, (12, 12), mode="area")
    assert (image - raw).square().mean() < 4 * (plain - interpolate(small, (32, 32))).square().mean() * 16


def test_the_camera_that_is_told_is_that_of_the_first_view_or_of_the_scene_before():
    data = TinyData(tiny_planes())
    draws = draw_fakes(step_generator(0, 1), data, batch_size=400, views=2, z_dim=8)
    first = draws.camera_labels[:, 0]
    never, always, half = (tell_cameras(step_generator(0, 2), draws, swap=swap).told_labels for swap in (0.0, 1.0, 0.5))
    assert never is not None
    assert always is not None
    assert half is not None
    assert torch.equal(never, first)
    assert torch.equal(always, first.roll(1, dims=0))
    swapped = (half == always).all(dim=1) & ~(half == never).all(dim=1)
    assert 0.4 < float(swapped.float().mean()) < 0.6
    assert bool((swapped | (half == never).all(dim=1)).all())
    own = draw_fakes(step_generator(0, 1), data, batch_size=400, views=2, z_dim=8, own_latents=True)
    told = tell_cameras(step_generator(0, 2), own, swap=0.0)
    assert torch.equal(told.told_labels, own.camera_labels)  # type: ignore[arg-type]
    assert torch.equal(told.scenes()[1].told_labels, own.camera_labels[:, 1])  # type: ignore[arg-type]


def test_schedules_at_their_corners():
    published = {"start": 1.0, "final": 0.5, "kimg": 1000.0}
    assert [swap_probability(seen, **published) for seen in (0, 500_000, 1_000_000, 9_000_000)] == [1, 0.75, 0.5, 0.5]
    assert swap_probability(0, start=1.0, final=0.8, kimg=0.0) == 0.8
    fade = {"start": 64, "final": 128, "kimg": 1000.0}
    seen = (0, 7_000, 8_000, 500_000, 1_000_000, 9_000_000)
    assert [neural_resolution(at, **fade) for at in seen] == [64, 64, 65, 96, 128, 128]
    assert neural_resolution(500_000, start=64, final=None, kimg=1000.0) == 64
    assert neural_resolution(0, start=64, final=128, kimg=0.0) == 128


def test_pictures_are_rendered_and_compared_at_the_neural_resolution_of_the_moment():
    config = tiny_planes()
    steps = tiny_steps(config)
    for seen, side in ((0, 8), (50, 10), (1000, 12)):
        fakes = steps.fresh_fakes(tiny_draws(config, 1), seen)
        assert fakes.raw_images is not None
        assert fakes.raw_images.shape == (8, 3, side, side)
        assert fakes.images.shape == (8, 3, 32, 32)
        real = steps.with_raw(tiny_reals(config), seen)
        assert real.raw_images is not None
        assert real.raw_images.shape == (8, 3, side, side)


def batches(rank: int, processes: int) -> Batches:
    config = tiny_planes()
    accelerator = Mock(spec=Accelerator, num_processes=processes, process_index=rank, device=torch.device("cpu"))
    data = TinyData(config, rank, processes)
    return Batches(
        data, data, config.training, z_dim=8, num_ws=4, accelerator=accelerator, conditioned=True, jittered=True
    )


def test_two_processes_draw_together_what_one_draws():
    alone = batches(0, 1)
    whole = [*alone.fakes(3, 0, 50), alone.density(3, 0)]
    for rank in range(2):
        mine = batches(rank, 2)
        for ours, theirs in zip([*mine.fakes(3, 0, 50), mine.density(3, 0)], whole, strict=True):
            assert ours is not None
            assert theirs is not None
            for name in ("z", "told_labels", "jitter_seeds", "points", "offsets"):
                if hasattr(theirs, name):
                    assert torch.equal(getattr(ours, name), getattr(theirs, name)[rank::2]), name
    assert len(torch.unique(whole[0].jitter_seeds)) == whole[0].jitter_seeds.numel()  # type: ignore[union-attr]


def test_the_lazy_rate_of_the_generator_is_that_of_its_regulariser(tmp_path: Path):
    config, accelerator = tiny_planes(), Accelerator(cpu=True)
    optimizer = config.training.optimizer
    generator = TriPlaneGenerator(config.generator)  # type: ignore[arg-type]
    lazy = generator_updater(generator, optimizer, accelerator, lazy_interval=4)
    assert lazy.base_rates[0] == pytest.approx(0.002)  # EG3D's, from 0.0025
    assert lazy.adam.defaults["betas"] == (0.0, pytest.approx(0.99**0.8))
    plain = generator_updater(generator, optimizer, accelerator)
    assert plain.base_rates[0] == 0.0025
    trainer = tiny_trainer(config, tmp_path, accelerator)
    assert trainer.generator_updater.base_rates[0] == pytest.approx(0.0025 * 2 / 3)
    assert "density" in trainer.train_step()
    assert "density" not in trainer.train_step()


@pytest.mark.parametrize("changed", [{}, {"reuse_fakes": True, "style_mixing": 0.5}])
def test_resuming_tri_planes_goes_on_bit_for_bit(tmp_path: Path, changed: dict[str, Any]):
    accelerator = Accelerator(cpu=True)

    def weights(trainer: Any) -> list[Tensor]:
        modules = (trainer.steps.generator, trainer.steps.discriminator, trainer.ema)
        return [t.clone() for module in modules for t in module.state_dict().values()]

    whole = tiny_trainer(tiny_planes(kimg=0.032, checkpoint_kimg=0.016, **changed), tmp_path / "whole", accelerator)
    whole.run.create("")
    before = weights(whole)
    whole.train()
    half = tiny_trainer(tiny_planes(kimg=0.016, checkpoint_kimg=0.016, **changed), tmp_path / "half", accelerator)
    half.run.create("")
    half.train()
    again = tiny_trainer(tiny_planes(kimg=0.032, checkpoint_kimg=0.016, **changed), tmp_path / "half", accelerator)
    checkpoint = again.run.latest_checkpoint()
    assert checkpoint is not None
    again.restore(read_training_state(checkpoint), read_generator(find_generator(checkpoint)).weights)
    assert again.images_seen == 16
    again.train()
    for ours, theirs in zip(weights(again), weights(whole), strict=True):
        assert torch.equal(ours, theirs)
    assert not all(torch.equal(now, then) for now, then in zip(weights(whole), before, strict=True))
