"""Pictures that grow within a run: when, what is shown, what the discriminator makes of it, resuming, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from cgsgan.config import ConfigError, parse_config
from cgsgan.growing import grow_first_convolution
from cgsgan.models.discriminator import Discriminator
from cgsgan.training.checkpoint import list_checkpoints, read_training_state
from cgsgan.training.generator_file import GENERATOR_FILE, read_generator
from cgsgan.training.growth import GrowthConfig, coarsen, enlarge
from tests.tiny_experiment import TINY, tiny_draws, tiny_implicit, tiny_steps, tiny_trainer

GROWTH = GrowthConfig(sizes=(8, 16), until_kimg=(2.0, 5.0), fade_kimg=1.0)


def test_sizes_over_a_run() -> None:
    sizes = [GROWTH.size(seen, 32) for seen in (0, 1999, 2000, 4999, 5000, 10**7)]
    assert sizes == [8, 8, 16, 16, 32, 32]
    shares = [GROWTH.coarse_share(seen) for seen in (0, 2000, 2500, 3000, 5250, 6000)]
    assert shares == pytest.approx([0, 1, 0.5, 0, 0.75, 0])
    assert GrowthConfig().size(0, 32) == 32


def test_what_is_shown() -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    small = images.numpy().reshape(2, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    smaller = images.numpy().reshape(2, 3, 8, 4, 8, 4).mean(axis=(3, 5))
    squares = [np.kron(x, np.ones((32 // x.shape[-1],) * 2)) for x in (small, smaller)]
    np.testing.assert_allclose(GROWTH.show(images, 100).numpy(), squares[1], atol=1e-15)
    np.testing.assert_allclose(GROWTH.show(images, 2500).numpy(), (squares[0] + squares[1]) / 2, atol=1e-15)
    np.testing.assert_allclose(GROWTH.show(images, 4000).numpy(), squares[0], atol=1e-15)
    assert torch.equal(GROWTH.show(images, 10_000), images)
    assert torch.equal(GrowthConfig().show(images, 0), images)
    # What was rendered small stays as it is when it is shown.
    rendered = torch.rand(1, 3, 8, 8)
    # Observed worst error 6e-8: the sum of sixteen equal numbers is rounded.
    torch.testing.assert_close(coarsen(enlarge(rendered, 32), 8), enlarge(rendered, 32), atol=1e-6, rtol=0)


def test_enlarged_pictures_are_judged_like_small_ones_by_a_smaller_discriminator() -> None:
    large = parse_config(TINY, source="tests").discriminator
    small = replace(large, resolution=16, unshuffle=1)
    one, other = Discriminator(small), Discriminator(large)
    state = dict(one.state_dict())
    state["from_rgb.weight"] = grow_first_convolution(state["from_rgb.weight"], 1, 2)
    other.load_state_dict(state)
    images, labels = torch.rand(4, 3, 16, 16) * 2 - 1, torch.randn(4, 25)
    # observed worst error 1e-7
    torch.testing.assert_close(other(enlarge(images, 32), labels), one(images, labels), atol=1e-5, rtol=1e-5)


def test_pictures_of_a_step_have_the_size_of_the_moment() -> None:
    config = tiny_implicit()
    steps = tiny_steps(config)
    steps.growth = config.training.growth
    for seen, size in ((0, 8), (30, 16), (60, 32)):
        _, fakes = steps.generator_gradients(tiny_draws(config, 1), seen, keep_view=0)
        assert fakes is not None
        assert fakes.images.shape == (8, 3, 32, 32)
        torch.testing.assert_close(coarsen(fakes.images, size), fakes.images, atol=1e-6, rtol=0)
        assert (coarsen(fakes.images, size // 2) - fakes.images).abs().max() > 1e-3


def test_resuming_in_the_middle_of_growth_gives_the_same_bits(tmp_path: Path) -> None:
    config, accelerator = tiny_implicit(kimg=0.064), Accelerator(cpu=True)

    def trainer(name: str, kimg: float) -> Any:
        (tmp_path / name).mkdir(exist_ok=True)
        made = tiny_trainer(replace(config, training=replace(config.training, kimg=kimg)), tmp_path / name, accelerator)
        made.steps.growth = config.training.growth
        return made

    whole = trainer("whole", 0.064)
    whole.train()
    trainer("parts", 0.024).train()
    last = list_checkpoints(tmp_path / "parts" / "checkpoints")[-1]
    second = trainer("parts", 0.064)
    second.restore(read_training_state(last), read_generator(last / GENERATOR_FILE).weights)
    second.train()
    for ours, theirs in zip(second.steps.generator.parameters(), whole.steps.generator.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        ({"sizes": [8]}, "expected until_kimg for each of the sizes, got 1 sizes and 0 until_kimg"),
        ({"sizes": [16, 8], "until_kimg": [1, 2]}, "training.growth.sizes: expected ascending numbers > 0"),
        ({"sizes": [8, 16], "until_kimg": [2, 2]}, "training.growth.until_kimg: expected ascending numbers > 0"),
        ({"sizes": [12], "until_kimg": [1]}, "fit several times into resolution 32, got 12"),
        ({"sizes": [32], "until_kimg": [1]}, "fit several times into resolution 32, got 32"),
        ({"fade_kimg": -1}, "training.growth.fade_kimg: expected a finite number >= 0"),
    ],
)
def test_bad_schedules(growth: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({**TINY, "training": {**TINY["training"], "growth": growth}}, source="tests")
