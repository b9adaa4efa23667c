"""bf16 and TF32: what runs in them, what does not, and how far off it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from cgsgan.cameras import full_float32, invert_rigid
from cgsgan.generators import build_renderer
from cgsgan.training.precision import set_tf32
from tests.tiny_experiment import tiny_config, tiny_draws, tiny_reals, tiny_steps, tiny_trainer


@pytest.fixture
def matmul_precision():
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = convolutions


def bf16_steps():
    steps = tiny_steps(tiny_config())
    steps.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    return steps


def test_bf16_gradients_are_close_to_float32():
    config, found = tiny_config(), []
    for steps in (tiny_steps(config), bf16_steps()):
        stats, _ = steps.generator_gradients(tiny_draws(config, 3), 10)
        gradient = torch.cat([p.grad.flatten() for p in steps.generator.parameters() if p.grad is not None])
        assert gradient.dtype == torch.float32
        assert bool(gradient.isfinite().all())
        found.append((gradient, stats["generator_logits"]))
    (exact, logits), (rounded, rounded_logits) = found
    error = float((rounded - exact).norm() / exact.norm())
    # bfloat16 has 8 bits: 4e-3 per factor. Observed 0.0085, and 8e-5 in the logits.
    assert 1e-4 < error < 0.04
    assert abs(float(rounded_logits - logits)) < 2e-3


def test_bf16_reaches_neither_mapping_nor_rasterizer_nor_penalty():
    config, steps = tiny_config(), bf16_steps()
    draws = tiny_draws(config, 1)
    assert torch.equal(steps._generate(draws).ws, tiny_steps(config)._generate(draws).ws)
    scene = steps._generate(draws).gaussians
    assert {tensor.dtype for tensor in scene.tensors()} == {torch.float32}
    renderer, plain = build_renderer(config), tiny_steps(config)
    assert renderer.config == steps.renderer.config
    for each in (steps, plain):
        each.penalty_gradients(tiny_reals(config), 10)
    for ours, theirs in zip(steps.discriminator.parameters(), plain.discriminator.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None and theirs.grad is not None:
            assert torch.equal(ours.grad, theirs.grad)


@pytest.fixture
def bf16_accelerator():
    AcceleratorState._reset_state(True)  # Accelerate keeps one precision for a whole process
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("half_discriminator", [False, True])
def test_a_run_in_bf16_stays_finite(tmp_path: Path, bf16_accelerator: Accelerator, half_discriminator: bool):
    config = tiny_config(mixed_precision="bf16", reuse_fakes=True)
    if half_discriminator:
        half = replace(config.discriminator, half_on_cpu=True, half_dtype="bfloat16", half_precision_blocks=1)
        config = replace(config, discriminator=half)
    trainer = tiny_trainer(config, tmp_path, bf16_accelerator)
    trainer.steps.autocast = trainer.accelerator.autocast
    for _ in range(4):
        stats = trainer.train_step()
        assert all(bool(value.isfinite()) for value in stats.values()), stats
    weights = [*trainer.steps.generator.parameters(), *trainer.steps.discriminator.parameters()]
    assert {p.dtype for p in weights} == {torch.float32}
    assert all(bool(p.isfinite().all()) for p in weights)


@pytest.mark.usefixtures("matmul_precision")
def test_tf32_is_set_for_gpus_and_kept_away_from_cameras():
    set_tf32(True, torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == "highest"
    set_tf32(True, torch.device("cuda"))
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
    with full_float32():
        assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    invert_rigid(torch.eye(4))
    assert torch.get_float32_matmul_precision() == "high"
    set_tf32(False, torch.device("cuda"))
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
