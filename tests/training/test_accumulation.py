"""Gradient accumulation: the update of the whole batch, in the memory of a part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from cgsgan.config import ConfigError, ExperimentConfig
from cgsgan.experiment import check_groups
from cgsgan.training.accumulation import AccumulatedSteps
from cgsgan.training.augmentation import AugmentationConfig, make_augmenter
from tests.tiny_experiment import tiny_config, tiny_draws, tiny_reals, tiny_steps, tiny_trainer
from tests.training.live_bytes import LiveBytes

VIEWS = 3


def reference_config() -> ExperimentConfig:
    config = tiny_config()
    return replace(config, rendering=replace(config.rendering, backend="reference"))


def one_iteration(
    config: ExperimentConfig, parts: int, *, reuse: bool, augmented: bool
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Gradients of all three phases of a step in float64, and its scalars, the running mean of w among them."""
    steps, dtype, seen = tiny_steps(config, torch.float64), torch.float64, 10
    augmenter = None
    if augmented:
        augmentation = AugmentationConfig(mode="fixed", p=0.7)
        batch, accelerator = config.training.batch_size, Accelerator(cpu=True)
        augmenter = make_augmenter(augmentation, seed=1, batch_size=batch, accelerator=accelerator)
        assert augmenter is not None
        augmenter.begin_step(5)
        steps.augment = augmenter
    made = steps if parts == 1 else AccumulatedSteps(steps, parts, augmenter)
    gradients: dict[str, torch.Tensor] = {}

    def take(phase: str, network: torch.nn.Module) -> None:
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                gradients[f"{phase} {name}"] = parameter.grad.clone()
        network.zero_grad(set_to_none=True)

    draws = tiny_draws(config, VIEWS, dtype)
    stats, fakes = made.generator_gradients(draws, seen, keep_view=1 if reuse else None)
    take("generator", steps.generator)
    if fakes is None:
        fakes = made.fresh_fakes(tiny_draws(config, 1, dtype), seen)
    stats |= made.discriminator_gradients(fakes, tiny_reals(config, dtype), seen)
    take("discriminator", steps.discriminator)
    stats |= made.penalty_gradients(tiny_reals(config, dtype), seen)
    take("penalty", steps.discriminator)
    stats |= {"w_average": steps.generator.get_buffer("mapping.w_average").clone()}
    return gradients, {**stats, "pictures": fakes.images.detach()}


@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("augmented", [False, True], ids=["plain", "augmented"])
def test_the_gradients_of_the_parts_are_those_of_the_batch(reuse: bool, augmented: bool):
    config = reference_config()
    whole, stats = one_iteration(config, 1, reuse=reuse, augmented=augmented)
    parts, part_stats = one_iteration(config, 2, reuse=reuse, augmented=augmented)
    assert whole.keys() == parts.keys()
    for phase in ("generator", "discriminator", "penalty"):
        assert sum(name.startswith(phase) for name in whole) > 8
    for name, gradient in whole.items():
        assert gradient.norm() > 0 or name.startswith("penalty"), name  # which has none for biases behind the last kink
        assert (parts[name] - gradient).norm() <= 1e-12 * gradient.norm(), name  # observed worst 1e-15
    assert stats.keys() == part_stats.keys()
    for name, value in stats.items():
        torch.testing.assert_close(part_stats[name], value, rtol=1e-12, atol=1e-14, msg=name)


def test_groups_of_the_batch_lie_whole_in_one_part():
    """With other members in a group, the gradient is another one: contiguous parts would not do."""
    config = reference_config()
    whole, _ = one_iteration(config, 1, reuse=True, augmented=False)
    shuffled = tiny_draws(config, VIEWS, torch.float64)
    order = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7])  # groups of 4 are the even and the odd ones; now they are mixed
    steps = tiny_steps(config, torch.float64)
    mixed = shuffled.map(lambda tensor: tensor[order])
    AccumulatedSteps(steps, 2, None).generator_gradients(mixed, 10)
    worst = max(
        float((parameter.grad - whole[f"generator {name}"]).norm() / whole[f"generator {name}"].norm())
        for name, parameter in steps.generator.named_parameters()
        if parameter.grad is not None
    )
    assert worst > 1e-4


def test_parts_need_less_memory():
    config = tiny_config(batch_size=16)
    peaks = {}
    for reuse in (False, True):
        for parts in (1, 2, 4):
            steps, account = tiny_steps(config), LiveBytes()
            made = steps if parts == 1 else AccumulatedSteps(steps, parts, None)
            with torch.autograd.graph.saved_tensors_hooks(account.pack, account.unpack):
                _, fakes = made.generator_gradients(tiny_draws(config, VIEWS), 0, keep_view=0 if reuse else None)
                if fakes is None:
                    fakes = made.fresh_fakes(tiny_draws(config, 1), 0)
                made.discriminator_gradients(fakes, tiny_reals(config), 0)
                made.penalty_gradients(tiny_reals(config), 0)
            peaks[reuse, parts] = account.peak
        assert peaks[reuse, 2] < 0.6 * peaks[reuse, 1]
        assert peaks[reuse, 4] < 0.35 * peaks[reuse, 1]


@pytest.mark.parametrize("reuse", [False, True])
def test_a_run_in_parts_is_the_run(tmp_path: Path, reuse: bool):
    found = []
    for parts in (1, 2):
        config = tiny_config(accumulate=parts, reuse_fakes=reuse)
        trainer = tiny_trainer(config, tmp_path / str(parts), Accelerator(cpu=True))
        found.append([{k: float(v) for k, v in trainer.train_step().items()} for _ in range(3)])
    for whole, parts in zip(*found, strict=True):
        # Three steps apart only by the order of sums, which Adam enlarges where a gradient is about 0.
        assert parts == pytest.approx(whole, rel=5e-3, abs=5e-3)


def test_parts_that_cut_groups_are_refused():
    check_groups(tiny_config(accumulate=2), 1)
    with pytest.raises(ConfigError, match=r"8 over 1 process\(es\) in 4 parts .* groups of 4"):
        check_groups(tiny_config(accumulate=4), 1)
    with pytest.raises(ConfigError, match=r"8 over 2 process\(es\) in 2 parts"):
        check_groups(tiny_config(accumulate=2), 2)
