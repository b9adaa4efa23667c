"""The multi-view step: its gradient, its memory, and who meets whom in the discriminator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cgsgan.cameras import Cameras
from cgsgan.losses.adversarial import generator_loss
from cgsgan.losses.anchors import center_loss, knn_loss
from cgsgan.training.schedules import blur, blur_sigma
from tests.tiny_experiment import tiny_config, tiny_draws, tiny_reals, tiny_steps
from tests.training.live_bytes import LiveBytes


@pytest.fixture
def reference_config():
    config = tiny_config(batch_size=4)
    return replace(config, rendering=replace(config.rendering, backend="reference"))


def test_multiview_gradient_is_that_of_the_mean_of_the_view_losses(reference_config):
    config, views, seen = reference_config, 3, 10
    draws = tiny_draws(config, views, torch.float64)
    steps = tiny_steps(config, torch.float64)
    steps.generator_gradients(draws, seen)
    ours = {name: p.grad.clone() for name, p in steps.generator.named_parameters() if p.grad is not None}

    steps.generator.zero_grad()
    output = steps.generator(draws.z)
    sigma = blur_sigma(seen, initial=config.training.loss.blur_sigma, fade_kimg=config.training.loss.blur_fade_kimg)
    assert sigma > 0.5
    losses = []
    for view in range(views):
        labels = draws.camera_labels[:, view]
        images = steps.renderer(
            output.gaussians,
            Cameras.from_labels(labels[:, None]),
            size=config.resolution,
            backgrounds=draws.backgrounds[:, view, None],
        ).images[:, 0]
        losses.append(generator_loss(steps.discriminator(blur(images * 2 - 1, sigma), labels)))
    means = output.anchors[0].means
    total = torch.stack(losses).mean() + 20 * knn_loss(means, 64) + center_loss(means)
    total.backward()
    theirs = {name: p.grad for name, p in steps.generator.named_parameters() if p.grad is not None}

    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.norm() > 0, name
        # Observed worst: 3e-7 relative, where the networks compute in single precision by design.
        assert (ours[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_memory_does_not_grow_with_the_number_of_views():
    config = tiny_config()
    peaks = {}
    for keep_view in (None, 0):
        for views in (1, 2, 8):
            steps, account = tiny_steps(config), LiveBytes()
            with torch.autograd.graph.saved_tensors_hooks(account.pack, account.unpack):
                steps.generator_gradients(tiny_draws(config, views), 0, keep_view=keep_view)
            peaks[keep_view, views] = account.peak
    assert peaks[None, 1] > 100_000
    assert peaks[None, 8] <= 1.01 * peaks[None, 1]
    for keep_view in (None, 0):
        assert peaks[keep_view, 2] == peaks[keep_view, 8]


def test_each_call_of_the_discriminator_holds_one_view_of_each_identity():
    config = tiny_config()
    steps, views, batch = tiny_steps(config), 3, config.training.batch_size
    rendered: list[torch.Tensor] = []
    calls: list[tuple[int, torch.Tensor]] = []
    render, judge = steps.renderer, steps.discriminator.forward

    def watch_render(scenes, cameras, **options):
        rendered.append(scenes.means)
        return render(scenes, cameras, **options)

    def watch_judge(images, labels):
        calls.append((len(images), labels))
        return judge(images, labels)

    steps.renderer = watch_render
    steps.discriminator.forward = watch_judge
    draws = tiny_draws(config, views)
    _, kept = steps.generator_gradients(draws, 0, keep_view=1)
    assert len(calls) == views
    for view, (count, labels) in enumerate(calls):
        assert count == batch
        # B different scenes, each once, with the cameras of this view only.
        assert rendered[view].shape[0] == batch == len(torch.unique(rendered[view].flatten(1), dim=0))
        torch.testing.assert_close(labels, draws.camera_labels[:, view])
    assert kept is not None
    torch.testing.assert_close(kept.camera_labels, draws.camera_labels[:, 1])
    assert kept.images.is_leaf


def test_discriminator_is_untouched_by_the_generator_step_and_vice_versa():
    config = tiny_config()
    steps = tiny_steps(config)
    _, fakes = steps.generator_gradients(tiny_draws(config, 2), 0, keep_view=0)
    assert all(p.grad is None for p in steps.discriminator.parameters())
    assert all(p.grad is not None for p in steps.generator.parameters() if p.requires_grad)
    steps.generator.zero_grad()
    assert fakes is not None
    stats = steps.discriminator_gradients(fakes, tiny_reals(config), 0)
    stats |= steps.penalty_gradients(tiny_reals(config), 0)
    assert all(p.grad is None for p in steps.generator.parameters())
    assert all(p.grad is not None for p in steps.discriminator.parameters())
    assert {"real_logits", "fake_logits", "logit_gap", "r1_penalty"} == stats.keys()


def test_asking_once_for_both_players_changes_no_gradient():
    config = tiny_config()
    found = []
    for keep in (None, 1):
        steps, draws = tiny_steps(config), tiny_draws(config, 3)
        _, fakes = steps.generator_gradients(draws, 0, keep_view=keep)
        if fakes is None:
            with torch.no_grad():
                fakes = steps._render(steps.generator(draws.z).scenes, draws, 1, 0)
        else:
            assert fakes.logits is not None
        steps.discriminator_gradients(fakes, tiny_reals(config), 0)
        networks = (steps.generator, steps.discriminator)
        found.append([p.grad for network in networks for p in network.parameters()])
    for separate, joint in zip(*found, strict=True):
        # Observed worst: 2e-6, from the order of sums.
        assert (separate - joint).norm() <= 2e-5 * separate.norm() + 1e-9


def test_penalty_is_half_gamma_times_interval_of_the_squared_gradient():
    config = tiny_config()
    config = replace(config, training=replace(config.training, loss=replace(config.training.loss, blur_fade_kimg=0.0)))
    steps, reals = tiny_steps(config), tiny_reals(config)
    stats = steps.penalty_gradients(reals, 0)
    step = {name: p.grad.clone() for name, p in steps.discriminator.named_parameters() if p.grad is not None}
    steps.discriminator.zero_grad()
    images = (reals.images * 2 - 1).requires_grad_()
    logits = steps.discriminator(images, reals.camera_labels)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
    (penalty * 0.5 * 1.0 * 2).backward()
    torch.testing.assert_close(stats["r1_penalty"], penalty.detach())
    for name, p in steps.discriminator.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(step[name], p.grad, msg=name)
