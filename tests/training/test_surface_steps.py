"""Training of signed-distance scenes: what each stage renders, teaches and costs; resuming; configs that do not fit."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from cgsgan.config import ConfigError, parse_config
from cgsgan.generators import build_renderer
from cgsgan.models.triplane.resampling import resize
from cgsgan.training.checkpoint import list_checkpoints, read_training_state
from cgsgan.training.generator_file import GENERATOR_FILE, read_generator
from cgsgan.training.judged import JudgedImages
from cgsgan.training.log import read_log
from cgsgan.training.surface_steps import SurfaceSteps
from tests.tiny_experiment import TINY_SURFACE, tiny_draws, tiny_steps, tiny_surface, tiny_trainer

LOW, SAMPLER, FULL = 0, 4, 16


def steps_and_draws() -> tuple[SurfaceSteps, Any]:
    config = tiny_surface()
    steps = tiny_steps(config)
    assert isinstance(steps, SurfaceSteps)
    draws = replace(tiny_draws(config, 1), told_labels=None, jitter_seeds=torch.arange(4)[:, None])
    return steps, draws


def gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_what_each_stage_trains() -> None:
    for seen, taught in ((LOW, False), (SAMPLER, True), (FULL, True)):
        steps, draws = steps_and_draws()
        stats, fakes = steps.generator_gradients(draws, seen, keep_view=0)
        assert fakes is not None
        assert fakes.images.shape == (4, 3, 32, 32)
        assert ("proposal" in stats) is taught
        assert not taught or 0 < float(stats["proposal_divergence"]) < float(stats["proposal"])
        assert float(stats["mean_beta"]) > 0
        found = gradients(steps.generator)
        assert any(name.startswith("proposal.") for name in found) is taught
        trained = {name.split(".")[0] for name in found}
        assert trained >= {"mapping", "backbone", "oriented", "decoder"}, seen


@pytest.mark.parametrize("seen", [SAMPLER, FULL])
def test_the_samplers_loss_reaches_the_sampler_alone(seen: int) -> None:
    found = []
    for weight in (0.0, 5.0):
        steps, draws = steps_and_draws()
        steps.surface = replace(steps.surface, proposal_weight=weight)
        steps.generator_gradients(draws, seen)
        found.append(gradients(steps.generator))
    for name, gradient in found[0].items():
        changed = not torch.equal(gradient, found[1][name])
        assert changed is name.startswith("proposal."), name


def test_the_loss_of_tightness_is_in_the_gradient() -> None:
    found = []
    for weight in (0.0, 2.0):
        steps, draws = steps_and_draws()
        steps.surface = replace(steps.surface, tightness_weight=weight, beta_start=0.04, beta_final=0.001)
        steps.generator_gradients(draws, FULL)
        found.append(gradients(steps.generator)["decoder.out.bias"][1])
    assert float(found[1]) > float(found[0]) + 0.1, "betas above the target must fall"


def test_the_views_of_a_scene_may_be_judged_together() -> None:
    config = tiny_surface()
    steps = tiny_steps(config)
    steps.views_apart = False
    draws = replace(tiny_draws(config, 2), told_labels=None, jitter_seeds=torch.arange(8).view(4, 2))
    stats, _ = steps.generator_gradients(draws, SAMPLER)
    assert {"proposal", "mean_beta"} <= stats.keys()
    assert any(name.startswith("proposal.") for name in gradients(steps.generator))


def test_reals_have_the_detail_of_fakes() -> None:
    steps, _ = steps_and_draws()
    images = torch.rand(2, 3, 32, 32)
    reals = JudgedImages(images=images, camera_labels=torch.zeros(2, 25))
    blurred = resize(resize(images, 8), 32)
    for seen, share in ((0, 0.0), (8, 0.0), (12, 0.5), (16, 1.0)):
        shown = steps.present_reals(reals, seen).images
        torch.testing.assert_close(shown, blurred + share * (images - blurred), atol=1e-6, rtol=0)


def test_a_scene_is_seen_the_same_in_small_and_large_pictures() -> None:
    steps, draws = steps_and_draws()
    steps.surface = replace(steps.surface, low_samples=64)
    steps.renderer.config = replace(steps.renderer.config, samples=32, nucleus=1.0)  # type: ignore[attr-defined]
    low, full = (steps.fresh_fakes(draws, seen).images for seen in (LOW, FULL))
    difference, between_scenes = ((low - other).abs().mean() for other in (full, low.roll(1, dims=0)))
    assert float(difference) < 0.2 * float(between_scenes)  # observed 0.008 and 0.090


def test_density_is_smoothed_in_the_early_stage_only() -> None:
    steps, _ = steps_and_draws()
    assert [steps.density_due(0, seen) for seen in (0, 11, 12)] == [True, True, False]
    assert not steps.density_due(1, 0)


def test_eikonal_term_is_off_until_asked_for(tmp_path: Path) -> None:
    trainer = tiny_trainer(tiny_surface(), tmp_path, Accelerator(cpu=True))
    steps, draws = trainer.steps, trainer.batches.density(0, 0)
    assert isinstance(steps, SurfaceSteps)
    assert steps.density_gradients(draws).keys() == {"density"}
    steps.surface = replace(steps.surface, eikonal_weight=0.1)
    assert steps.density_gradients(draws).keys() == {"density", "eikonal"}


def test_a_run_through_all_stages_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole = tiny_trainer(tiny_surface(), tmp_path / "whole", Accelerator(cpu=True))
    whole.run.create("")
    logged = []
    for _ in range(4):
        if whole.images_seen == 4:  # before the sampler's first step
            whole.save()
        logged.append(whole.train_step().keys())
    assert ["proposal" in keys for keys in logged] == [False] + [True] * 3
    for checkpoint in list_checkpoints(whole.run.checkpoints):
        resumed = tiny_trainer(tiny_surface(), tmp_path / checkpoint.name, Accelerator(cpu=True))
        resumed.restore(read_training_state(checkpoint), read_generator(checkpoint / GENERATOR_FILE).weights)
        while resumed.images_seen < whole.images_seen:
            resumed.train_step()
        for one, other in ((whole.ema, resumed.ema), (whole.steps.discriminator, resumed.steps.discriminator)):
            states = one.state_dict(), other.state_dict()
            assert all(torch.equal(value, states[1][name]) for name, value in states[0].items()), checkpoint.name


def test_early_checkpoints_are_seen_without_the_sampler() -> None:
    config = tiny_surface()
    samplers = [build_renderer(config, seen).config.sampler for seen in (4, 8, 0)]  # type: ignore[attr-defined]
    assert samplers == ["uniform", "robust", "robust"]


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("generator.proposal.bins", 7, "generator.proposal.bins is 7 but rendering.bins is 8"),
        ("generator.proposal.probe_resolution", 16, "probe_resolution is 16 but rendering.probe_resolution is 8"),
        ("rendering.box_warp", 1.5, "generator.decoder.box_size is 1.0 but rendering.box_warp is 1.5"),
        ("rendering.plane_axes", "official", "corrected axes, got official"),
        ("rendering.samples", 3, "at least one sample per stratum"),
        ("training.surface.patch_size", 33, "patch_size: expected at most the resolution of 32 px, got 33"),
        ("training.surface.low_resolution", 64, "low_resolution: expected at most the resolution of 32 px"),
        ("training.surface.full_kimg", 0.001, "pictures need a sampler that has been trained"),
        ("generator.decoder.start_beta", -1.0, "beta is a length > 0"),
        ("generator.kind", "triplanes", "unknown key"),
        ("rendering.kind", "volume", "unknown key rendering.probe_resolution"),
    ],
)
def test_parts_that_do_not_fit_get_one_clear_line(path: str, value: object, match: str) -> None:
    values: dict[str, Any] = copy.deepcopy(TINY_SURFACE)
    *folders, last = path.split(".")
    place = values
    for folder in folders:
        place = place.setdefault(folder, {})
    place[last] = value
    with pytest.raises(ConfigError, match=match) as refused:
        parse_config(values, source="tests")
    assert "\n" not in str(refused.value)


def test_figures_beside_contact_sheets_are_logged(tmp_path: Path) -> None:
    config = tiny_surface(kimg=0.008, log_kimg=0.004, sample_kimg=0.008, checkpoint_kimg=1.0)
    trainer = tiny_trainer(config, tmp_path / "run", Accelerator(cpu=True))
    trainer.milestones.measure = lambda ema: {"sampler_psnr": 31.5}
    trainer.run.create("")
    trainer.train()
    rows = read_log(trainer.run.log)
    assert [row["sampler_psnr"] for row in rows if "sampler_psnr" in row] == [31.5]
    assert ["proposal" in row for row in rows if "mean_beta" in row] == [False, True]
