"""What a discriminator with heads for pose and latent adds to both players, against the objective written out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import softplus

from cgsgan.cameras import Cameras, yaw_pitch
from cgsgan.config import ConfigError, ExperimentConfig, parse_config
from cgsgan.training.accumulation import AccumulatedSteps
from cgsgan.training.steps import AdversarialSteps
from tests.tiny_experiment import TINY, tiny_config, tiny_draws, tiny_reals, tiny_steps, tiny_trainer

VIEWS = 2
POSE_WEIGHT, LATENT_WEIGHT = 15.0, 0.7


def recognizing(*, pose: bool = True, latent: int = 8) -> ExperimentConfig:
    """Four scenes, the plain torch rasterizer, no blur, no regularisers, groups of 2."""
    config = tiny_config(batch_size=4)
    loss = replace(
        config.training.loss, blur_fade_kimg=0.0, knn_weight=0.0, center_weight=0.0, latent_weight=LATENT_WEIGHT
    )
    heads = replace(config.discriminator, minibatch_std_group=2, pose_head=pose, latent_head=latent)
    return replace(
        config,
        rendering=replace(config.rendering, backend="reference"),
        discriminator=heads,
        training=replace(config.training, loss=loss),
    )


def take(network: torch.nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


def written_out(steps: AdversarialSteps, draws, view: int) -> tuple[Tensor, Tensor]:
    """Softplus arguments and recognition error of one view."""
    labels = draws.camera_labels[:, view]
    images = steps.renderer(
        steps.generator(draws.z).gaussians,
        Cameras.from_labels(labels[:, None]),
        size=steps.size,
        backgrounds=draws.backgrounds[:, view, None],
    ).images[:, 0]
    found = steps.discriminator.judge(images * 2 - 1, labels)  # type: ignore[operator]
    error = images.new_zeros(())
    if found.pose is not None:
        true = torch.stack(yaw_pitch(Cameras.from_labels(labels)), dim=1)
        error = error + POSE_WEIGHT * ((found.pose - true) ** 2).mean()  # tiny poses are far from the seam
    if found.latent is not None:
        error = error + LATENT_WEIGHT * ((found.latent - draws.z) ** 2).mean()
    return found.logits, error


@pytest.mark.parametrize("heads", [{}, {"latent": 0}, {"pose": False}], ids=["both", "pose", "latent"])
@pytest.mark.parametrize("apart", [True, False], ids=["apart", "together"])
def test_both_players_minimise_the_error(heads: dict, apart: bool):
    config = recognizing(**heads)
    draws, reals = tiny_draws(config, VIEWS, torch.float64), tiny_reals(config, torch.float64)
    steps = replace(tiny_steps(config, torch.float64), views_apart=apart)
    stats, fakes = steps.generator_gradients(draws, 0, keep_view=1)
    ours = take(steps.generator)
    assert fakes is not None
    steps.discriminator_gradients(fakes, reals, 0)
    ours_discriminator = take(steps.discriminator)
    assert (("pose_error" in stats), ("latent_error" in stats)) == (
        config.discriminator.pose_head, config.discriminator.latent_head > 0,
    )  # fmt: skip

    plain = tiny_steps(config, torch.float64)
    if apart:
        views = [written_out(plain, draws, view) for view in range(VIEWS)]
        sum(((softplus(-logits).mean() + error) / VIEWS for logits, error in views), torch.zeros(())).backward()
        theirs = take(plain.generator)
        assert theirs.keys() == ours.keys()
        for name, gradient in theirs.items():
            # Observed worst: 3e-7 relative, where the networks compute in single precision by design.
            assert (ours[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    plain.discriminator.zero_grad()
    logits, error = written_out(plain, draws.map(torch.Tensor.detach), 1)
    real_logits = plain.discriminator(reals.images * 2 - 1, reals.camera_labels)
    (softplus(logits).mean() + error + softplus(-real_logits).mean()).backward()
    theirs = take(plain.discriminator)
    assert theirs.keys() == ours_discriminator.keys()
    for name, gradient in theirs.items():
        assert (ours_discriminator[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-12, name
    heads_seen = [name for name in theirs if "epilogue.pose" in name or "epilogue.latent" in name]
    assert len(heads_seen) == 2 * (config.discriminator.pose_head + (config.discriminator.latent_head > 0))


@pytest.mark.parametrize("reuse", [True, False])
def test_parts_of_a_batch_add_up(reuse: bool):
    config = recognizing()
    draws, reals = tiny_draws(config, VIEWS, torch.float64), tiny_reals(config, torch.float64)
    found = []
    for parts in (1, 2):
        steps = tiny_steps(config, torch.float64)
        made = steps if parts == 1 else AccumulatedSteps(steps, parts, None)
        _, fakes = made.generator_gradients(draws, 0, keep_view=1 if reuse else None)
        fakes = fakes or made.fresh_fakes(draws, 0)
        made.discriminator_gradients(fakes, reals, 0)
        found.append({**take(steps.generator), **take(steps.discriminator)})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert (found[1][name] - gradient).norm() <= 1e-12 * gradient.norm() + 1e-15, name


def test_heads_learn_and_a_run_logs_them(tmp_path: Path):
    config = recognizing()
    config = replace(config, training=replace(config.training, reuse_fakes=True))
    trainer = tiny_trainer(config, tmp_path, Accelerator(cpu=True))
    stats = [trainer.train_step() for _ in range(3)]
    assert all({"pose_error", "latent_error"} <= set(found) for found in stats)
    assert any(key.startswith("discriminator.epilogue.pose") for key in trainer._state().tensors)


def test_without_heads_a_discriminator_is_what_it_was():
    torch.manual_seed(0)
    plain = tiny_steps(tiny_config())
    assert not plain.discriminator.recognizes
    assert not [name for name in plain.discriminator.state_dict() if "pose" in name or "latent" in name]
    stats, _ = plain.generator_gradients(tiny_draws(tiny_config(), 1), 0)
    assert not {"pose_error", "latent_error"} & set(stats)


def test_contradictions_are_refused_in_one_line():
    def refused(message: str, **parts: dict) -> None:
        values = {**TINY, **{name: {**TINY[name], **part} for name, part in parts.items()}}
        with pytest.raises(ConfigError, match=message):
            parse_config(values, source="here.yaml")

    refused(
        r"discriminator.latent_head: expected generator.mapping.z_dim, 8, or 0, got 9", discriminator={"latent_head": 9}
    )
    refused(r"latent_head must be 0 or", discriminator={"latent_head": -1})
    refused(
        r"latent_head names the one latent of a picture, but training.style_mixing 0.5",
        discriminator={"latent_head": 8}, training={"style_mixing": 0.5},
    )  # fmt: skip
    refused(
        r"training.loss.pose_weight: expected a finite number >= 0, got -1", training={"loss": {"pose_weight": -1.0}}
    )
