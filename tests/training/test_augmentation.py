"""The adaptive rule, what the networks see of it, and resuming with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from cgsgan.training.augmentation import AugmentationConfig, Augmenter
from cgsgan.training.checkpoint import find_generator, read_training_state
from cgsgan.training.generator_file import read_generator
from tests.tiny_experiment import tiny_config, tiny_trainer


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def augmenter_of(accelerator: Accelerator, **settings: object) -> Augmenter:
    config = AugmentationConfig(**{"mode": "adaptive", "speed_kimg": 1.0, "interval": 2, **settings})
    return Augmenter(config, seed=0, batch_size=10, accelerator=accelerator)


def test_p_follows_the_sign_of_the_real_logits(accelerator: Accelerator):
    augmenter = augmenter_of(accelerator)
    history = []
    for sign in [1.0] * 6 + [0.6, 0.2] + [-1.0] * 8:
        augmenter.observe(torch.tensor(sign))
        history.append(round(augmenter.p, 6))
    # 2 steps of 10 pictures at 1 kimg: 0.02 a change, every second step; never below 0.
    assert history[1:6:2] == [0.02, 0.04, 0.06]
    assert history[7] == 0.04  # their mean is 0.4
    assert history[-1] == 0.0


def test_p_is_limited(accelerator: Accelerator):
    augmenter = augmenter_of(accelerator, max_p=0.05)
    for _ in range(10):
        augmenter.observe(torch.tensor(1.0))
    assert augmenter.p == 0.05


def test_draws_depend_on_step_and_place_in_it_alone(accelerator: Accelerator):
    images = torch.rand(10, 3, 8, 8)
    augmenter = augmenter_of(accelerator, p=0.7)
    augmenter.begin_step(3)
    first, second = augmenter(images), augmenter(images)
    assert not torch.equal(first, second)
    again = augmenter_of(accelerator, p=0.7)
    again.begin_step(2)
    again(images)
    again.begin_step(3)
    assert torch.equal(again(images), first)
    assert torch.equal(again(images), second)


def test_p_0_changes_nothing(tmp_path: Path, accelerator: Accelerator):
    plain = tiny_trainer(tiny_config(), tmp_path / "plain", accelerator)
    fixed = tiny_trainer(tiny_config(augmentation=AugmentationConfig(mode="fixed")), tmp_path / "p0", accelerator)
    some = tiny_trainer(tiny_config(augmentation=AugmentationConfig(mode="fixed", p=0.5)), tmp_path / "p1", accelerator)
    for _ in range(2):
        one, same, other = (trainer.train_step() for trainer in (plain, fixed, some))
        assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["real_logits"], other["real_logits"])
    assert all(bool(p.isfinite().all()) for p in some.steps.discriminator.parameters())


@pytest.mark.parametrize("reuse_fakes", [False, True])
def test_resuming_goes_on_bit_for_bit(tmp_path: Path, accelerator: Accelerator, reuse_fakes: bool):
    # interval 3 and 4 steps before the checkpoint: the signs of a step are waiting in it.
    adaptive = AugmentationConfig(mode="adaptive", p=0.5, interval=3, speed_kimg=0.2)
    whole = tiny_trainer(tiny_config(augmentation=adaptive, reuse_fakes=reuse_fakes), tmp_path / "whole", accelerator)
    whole.run.create("")
    whole.train()
    half = tiny_trainer(
        tiny_config(kimg=0.032, augmentation=adaptive, reuse_fakes=reuse_fakes), tmp_path / "half", accelerator
    )
    half.run.create("")
    half.train()
    again = tiny_trainer(tiny_config(augmentation=adaptive, reuse_fakes=reuse_fakes), tmp_path / "half", accelerator)
    checkpoint = again.run.latest_checkpoint()
    state = read_training_state(checkpoint)
    assert state.progress["augmentation"]["observed"] == 1
    assert state.progress["augmentation"]["p"] != 0.5
    again.restore(state, read_generator(find_generator(checkpoint)).weights)
    again.train()
    assert again.augmenter.p == whole.augmenter.p != half.augmenter.p
    for ours, theirs in ((again.steps.generator, whole.steps.generator), (again.ema, whole.ema),
                         (again.steps.discriminator, whole.steps.discriminator)):  # fmt: skip
        for (name, value), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(value, other), name
    line = json.loads(whole.run.log.read_text().splitlines()[-1])
    assert {"augmentation_p", "real_signs"} <= line.keys()


def test_settings_without_a_meaning():
    for bad in ({"p": 0.9}, {"p": -0.1}, {"max_p": 1.5}, {"interval": 0}, {"speed_kimg": 0.0}):
        with pytest.raises(ValueError, match=r"training\.augmentation"):
            AugmentationConfig(**bad)
