"""Runs that have gone wrong stop, or go back, and say so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from cgsgan.config import ConfigError, parse_config
from cgsgan.training.checkpoint import find_generator, list_checkpoints, read_training_state
from cgsgan.training.generator_file import read_generator
from cgsgan.training.guards import CollapseGuard, GuardConfig, TrainingBrokenError
from cgsgan.training.log import read_log
from cgsgan.training.tracking import check_trackers
from tests.tiny_experiment import TINY, tiny_config, tiny_trainer
from tests.training.test_trainer import weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def guarded(folder: Path, accelerator: Accelerator, **guard: object):
    """A run with a checkpoint at 32 images; its pictures number 40 to 47 are broken."""
    config = tiny_config(kimg=0.096)
    config = replace(config, training=replace(config.training, guard=GuardConfig(**guard)))
    trainer = tiny_trainer(config, folder, accelerator)
    trainer.run.create("")
    real_next = trainer.stream.next

    def broken_next():
        batch = real_next()
        if trainer.stream.position == 48:
            batch.premultiplied = batch.premultiplied * float("nan")
        return batch

    trainer.stream.next = broken_next
    return trainer


def test_nan_stops_at_its_step_and_leaves_the_last_checkpoint(tmp_path: Path, accelerator: Accelerator):
    trainer = guarded(tmp_path / "run", accelerator)
    with pytest.raises(TrainingBrokenError, match=r"at step 6 \(0.048 kimg\): .*real_logits.*kimg-00000.032") as caught:
        trainer.train()
    assert "discriminator_gradient_norm" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in list_checkpoints(trainer.run.checkpoints)] == ["kimg-00000.032"]


def test_rollback_goes_on_with_other_latents_and_later_pictures(tmp_path: Path, accelerator: Accelerator):
    trainer = guarded(tmp_path / "run", accelerator, on_nan="rollback")
    latents = []
    draw = trainer.batches.fakes

    def drawing(step, rollbacks, images_seen):
        draws = draw(step, rollbacks, images_seen)
        latents.append((trainer.step_index, draws[0].z))
        return draws

    trainer.batches.fakes = drawing
    trainer.train()
    assert trainer.images_seen == 96
    assert trainer.rollbacks == 1
    assert all(bool(t.isfinite().all()) for t in weights(trainer))
    first, second = (z for step, z in latents if step == 4)
    assert not torch.equal(first, second)
    assert trainer.stream.position == 96 + 16  # the two batches that led to it were not seen again
    events = [row for row in read_log(trainer.run.log) if "event" in row]
    assert [event["event"] for event in events] == ["rollback"]
    assert [row["kimg"] for row in read_log(trainer.run.log) if "event" not in row] == [0.032, 0.064, 0.096]
    state = read_training_state(trainer.run.latest_checkpoint())
    assert state.progress["rollbacks"] == 1
    again = tiny_trainer(tiny_config(), tmp_path / "run", accelerator)
    again.restore(state, read_generator(find_generator(trainer.run.path)).weights)
    assert again.rollbacks == 1


def test_rollbacks_come_to_an_end(tmp_path: Path, accelerator: Accelerator):
    trainer = guarded(tmp_path / "run", accelerator, on_nan="rollback", max_rollbacks=2)
    step = trainer.train_step

    def breaking_step():
        stats = step()
        return {**stats, "knn": torch.tensor(float("inf"))} if trainer.step_index == 5 else stats

    trainer.train_step = breaking_step
    with pytest.raises(TrainingBrokenError, match=r"step 5 .*knn not finite after 2 rollback\(s\); .*kimg-00000.032"):
        trainer.train()


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_broken_weights_are_named(tmp_path: Path, accelerator: Accelerator, network: str):
    trainer = tiny_trainer(tiny_config(), tmp_path / "run", accelerator)
    stats = trainer.train_step()
    assert trainer.agreement.after_step(stats, None, False) == (None, False, [])
    with torch.no_grad():
        list(getattr(trainer.steps, network).parameters())[-1].view(-1)[0] = float("inf")
    assert trainer.agreement.after_step(stats, None, False) == (None, False, [f"{network} weights"])


def test_a_gradient_that_was_made_finite_is_still_seen(tmp_path: Path, accelerator: Accelerator):
    trainer = tiny_trainer(tiny_config(), tmp_path / "run", accelerator)
    updater = trainer.discriminator_updater
    for parameter in updater.parameters:
        parameter.grad = torch.full_like(parameter, float("nan"))
    assert not updater.step(1.0).isfinite()
    assert all(bool(p.isfinite().all()) for p in updater.parameters)


def test_collapse_is_told_once_or_stops():
    far = {"real_logits": 25.0, "fake_logits": -3.0, "logit_gap": 28.0}
    fine = {"real_logits": 0.5, "fake_logits": -0.5, "logit_gap": 1.0}
    guard = CollapseGuard(GuardConfig())
    assert guard.look(fine, 1.0) is None
    assert guard.look(far, 2.0) == "warning: at 2 kimg logits passed +-20 (real_logits +25.0)"
    assert guard.look(far, 3.0) is None
    assert guard.look(fine, 4.0) is None
    assert guard.look(far, 5.0) is not None
    with pytest.raises(TrainingBrokenError, match=r"at 2 kimg logits passed .*--training.guard.on-collapse warn"):
        CollapseGuard(GuardConfig(on_collapse="stop")).look(far, 2.0)
    assert CollapseGuard(GuardConfig(on_collapse="off")).look(far, 2.0) is None


def test_a_gap_at_zero_counts_only_when_it_lasts():
    guard = CollapseGuard(GuardConfig(gap_kimg=10.0))
    flat = {"real_logits": 0.1, "fake_logits": 0.1, "logit_gap": 0.0}
    assert guard.look(flat, 1.0) is None
    assert guard.look({**flat, "logit_gap": 0.5}, 5.0) is None
    assert guard.look(flat, 6.0) is None
    assert guard.look(flat, 15.9) is None
    assert "below 0.02 since 6 kimg" in (guard.look(flat, 16.0) or "")


def test_settings_that_make_no_sense_are_refused():
    for guard, word in (({"logit_bound": 0}, "logit_bound"), ({"on_nan": "rolback"}, "did you mean 'rollback'")):
        with pytest.raises(ConfigError, match=word):
            parse_config({**TINY, "training": {**TINY["training"], "guard": guard}}, source="x")


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="wandb needs a package that is not installed; pip install wandb"):
        check_trackers(["wandb"])
    check_trackers([])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, accelerator: Accelerator, number: signal.Signals):
    whole = tiny_trainer(tiny_config(), tmp_path / "whole", accelerator)
    whole.run.create("")
    assert whole.train() is None
    stopped = tiny_trainer(tiny_config(), tmp_path / "stopped", accelerator)
    stopped.run.create("")
    step = stopped.train_step

    def interrupted_step():
        if stopped.step_index == 2:
            os.kill(os.getpid(), number)  # in the middle of the third step
        return step()

    stopped.train_step = interrupted_step
    before = signal.getsignal(number)
    assert stopped.train() == number
    assert signal.getsignal(number) == before
    assert stopped.images_seen == 24
    again = tiny_trainer(tiny_config(), tmp_path / "stopped", accelerator)
    checkpoint = again.run.latest_checkpoint()
    again.restore(read_training_state(checkpoint), read_generator(find_generator(checkpoint)).weights)
    assert again.images_seen == 24
    again.train()
    for ours, theirs in zip(weights(again), weights(whole), strict=True):
        assert torch.equal(ours, theirs)


TWICE = """
import os, signal, sys, time
from cgsgan.training.interruption import StopRequest
with StopRequest() as request:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # a launcher passing it on
    assert request.signal == signal.SIGTERM
    time.sleep(1.1)
    print("still here", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
    print("too long", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_second_signal_ends_at_once():
    done = subprocess.run(
        [sys.executable, "-c", TWICE], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 130
    assert done.stdout == "still here\n"
    assert "finishing the step" in done.stderr
    assert "ending at once" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_command_line_is_stopped_and_resumed(tmp_path: Path):
    """As a scheduler does it: one command, started again and again."""
    out = tmp_path / "run"
    command = [
        sys.executable, "train.py", "configs/quickstart.yaml", "--out", str(out), "--resume",
        "--data.synthetic.count", "48", "--training.batch-size", "8", "--training.kimg", "100",
        "--training.log_kimg", "0.008", "--training.checkpoint_kimg", "1000", "--training.sample_kimg", "1000",
    ]  # fmt: skip
    environment = {**os.environ, "CGSGAN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    seen = []
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        rows = len(read_log(out / "log.jsonl"))
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while len(read_log(out / "log.jsonl")) <= rows:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        (line,) = [line for line in output.splitlines() if "go on with" in line]
        assert line.startswith(f"stopped by {number.name} at ")
        assert line.endswith(f"python train.py --resume {out}")
        (*_, newest) = list_checkpoints(out / "checkpoints")
        seen.append(json.loads((newest / "state.json").read_text())["images_seen"])
    assert 0 < seen[0] < seen[1]


def test_a_run_that_ended_before_its_first_checkpoint_starts_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from cgsgan.cli import main
    from cgsgan.config import dump_config
    from cgsgan.training.run_folder import RunFolder

    monkeypatch.setenv("CGSGAN_CACHE", str(tmp_path / "cache"))
    config = tiny_config(kimg=0.008, checkpoint_kimg=1.0, log_kimg=0.008)
    config = replace(
        config, data=replace(config.data, synthetic=replace(config.data.synthetic, count=8, resolution=32))
    )
    run = RunFolder(tmp_path / "run")
    run.create(dump_config(config))
    run.log.write_text('{"kimg": 0.008}\n{"ki')
    (run.checkpoints / ".kimg-00000.008.partial").mkdir()
    (run.path / ".config.yaml.0badcafe.tmp").write_text("na")
    assert main(["train", "--resume", str(run.path)]) == 0
    assert "ended before its first checkpoint; starting from its beginning" in capsys.readouterr().out
    assert [path.name for path in run.checkpoints.iterdir()] == ["kimg-00000.008"]
    assert not list(run.path.glob(".*"))
    assert len(read_log(run.log)) == 1
