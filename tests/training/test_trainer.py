"""The loop: processes, resuming, what a run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from cgsgan.training.checkpoint import find_generator, list_checkpoints, read_slow_weights, read_training_state
from cgsgan.training.generator_file import CheckpointError, read_generator
from tests.tiny_experiment import tiny_config, tiny_trainer

HERE = Path(__file__).parent


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def commands(launcher: str, folder: Path) -> list[str]:
    """What starts a script in two processes. Accelerate counts on MPI to do so on CPUs; torchrun needs nothing."""
    if launcher == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    hosts = folder / "hosts"
    hosts.write_text("localhost slots=2\n")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    return [*launch, "--num_machines", "1", "--mpirun_hostfile", str(hosts)]


def launch(command: list[str], out: Path) -> dict[str, torch.Tensor]:
    root = str(HERE.parents[1])
    scripts = str(Path(sys.executable).parent)  # where pip puts mpirun
    environment = {
        **os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        # Continuous integration runs as root in containers; these are no cluster jobs.
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }  # fmt: skip
    script = [str(HERE / "two_processes.py"), str(out)]
    done = subprocess.run(
        [*command, *script], check=False, capture_output=True, text=True, env=environment, timeout=240, cwd=root
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return launch([sys.executable], tmp_path_factory.mktemp("one") / "one.safetensors")


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_make_the_update_of_one_with_the_joined_batch(
    launcher: str, tmp_path: Path, one_process: dict[str, torch.Tensor]
):
    if launcher == "accelerate" and sys.platform != "linux":
        pytest.skip("Open MPI from PyPI is for Linux")
    two = launch(commands(launcher, tmp_path), tmp_path / "two.safetensors")
    one = dict(one_process)
    assert one.pop("processes") == 1
    assert two.pop("processes") == 2
    assert one.keys() == two.keys()
    assert len([name for name in one if name.startswith("generator_gradient.1.")]) > 20
    for name, value in one.items():
        if ".0." in name:
            # Gradients of the first step differ by the order of sums alone; observed worst 2e-6.
            assert (two[name] - value).norm() <= 2e-5 * value.norm() + 1e-9, name
        elif "buffer" in name:
            torch.testing.assert_close(two[name], value, msg=name)
        elif "weight" in name:
            # Adam divides by |g|: where that is about 0, rounding decides the sign of a step. Observed worst 4e-4.
            assert (two[name] - value).norm() <= 5e-3 * value.norm() + 1e-6, name


def weights(trainer) -> list[torch.Tensor]:
    modules = (trainer.steps.generator, trainer.steps.discriminator, trainer.ema)
    return [t.clone() for module in modules for t in module.state_dict().values()]


def test_resuming_goes_on_bit_for_bit(tmp_path: Path, accelerator: Accelerator):
    whole = tiny_trainer(tiny_config(), tmp_path / "whole", accelerator)
    whole.run.create("")
    whole.train()
    assert whole.images_seen == 64

    half = tiny_trainer(tiny_config(kimg=0.032), tmp_path / "half", accelerator)
    half.run.create("")
    half.train()
    again = tiny_trainer(tiny_config(), tmp_path / "half", accelerator)
    checkpoint = again.run.latest_checkpoint()
    again.restore(read_training_state(checkpoint), read_generator(find_generator(checkpoint)).weights)
    assert again.images_seen == 32
    again.train()
    for ours, theirs in zip(weights(again), weights(whole), strict=True):
        assert torch.equal(ours, theirs)


def test_a_second_average_is_slower_saved_resumed_and_shown(tmp_path: Path, accelerator: Accelerator):
    averages = {"ema_halflife_kimg": 0.004, "ema_slow_halflife_kimg": 0.04, "ema_rampup": 0.0}
    whole = tiny_trainer(tiny_config(**averages), tmp_path / "whole", accelerator)
    start = {name: p.detach().double().clone() for name, p in whole.steps.generator.named_parameters()}
    expected = {halflife: dict(start) for halflife in (0.004, 0.04)}
    for _ in range(8):
        whole.train_step()
        for halflife, average in expected.items():
            beta = 0.5 ** (8 / (halflife * 1000))
            for name, p in whole.steps.generator.named_parameters():
                average[name] = beta * average[name] + (1 - beta) * p.detach().double()
    assert whole.slow_ema is not None
    for ema, halflife in ((whole.ema, 0.004), (whole.slow_ema, 0.04)):
        for name, p in ema.named_parameters():
            # Observed worst: 2e-7, of sums in single precision.
            torch.testing.assert_close(p.double(), expected[halflife][name], rtol=1e-5, atol=2e-6)

    half = tiny_trainer(tiny_config(kimg=0.032, **averages), tmp_path / "half", accelerator)
    half.run.create("")
    half.train()
    checkpoint = half.run.latest_checkpoint()
    assert sorted(path.name for path in checkpoint.glob("*.safetensors")) == [
        "generator.safetensors", "generator_slow.safetensors", "training.safetensors",
    ]  # fmt: skip
    again = tiny_trainer(tiny_config(**averages), tmp_path / "half", accelerator)
    state, weights = read_training_state(checkpoint), read_generator(find_generator(checkpoint)).weights
    with pytest.raises(CheckpointError, match=r"there is no generator_slow.safetensors in it, but training.ema_slow"):
        again.restore(state, weights)
    again.restore(state, weights, read_slow_weights(checkpoint))
    while again.images_seen < 64:
        again.train_step()
    assert again.slow_ema is not None
    for ours, theirs in zip(again.slow_ema.state_dict().values(), whole.slow_ema.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    slow = checkpoint / "generator_slow.safetensors"
    assert find_generator(slow) == slow  # what `render` and `evaluate` open by its name
    assert not torch.equal(read_generator(slow).weights["points.xyz"], weights["points.xyz"])


def test_a_second_average_must_be_slower():
    with pytest.raises(ValueError, match=r"ema_slow_halflife_kimg: expected more than ema_halflife_kimg, 10, or null"):
        tiny_config(ema_slow_halflife_kimg=5.0)


def test_a_run_leaves_a_log_and_checkpoints(tmp_path: Path, accelerator: Accelerator):
    trainer = tiny_trainer(tiny_config(keep_checkpoints=1), tmp_path / "run", accelerator)
    trainer.run.create("name: tiny\n")
    trainer.train()
    lines = [json.loads(line) for line in trainer.run.log.read_text().splitlines()]
    assert [line["kimg"] for line in lines] == [0.032, 0.064]
    assert {"logit_gap", "r1_penalty", "knn", "center", "images_per_second"} <= lines[0].keys()
    found = list_checkpoints(trainer.run.checkpoints)
    assert [path.name for path in found] == ["kimg-00000.064"]
    assert sorted(path.name for path in found[0].iterdir()) == [
        "generator.safetensors",
        "state.json",
        "training.safetensors",
    ]
    stored = read_generator(found[0] / "generator.safetensors")
    assert stored.images_seen == 64
    assert stored.config == {"name": "tiny"}


def test_an_incomplete_checkpoint_is_refused_in_one_line(tmp_path: Path, accelerator: Accelerator):
    trainer = tiny_trainer(tiny_config(), tmp_path / "run", accelerator)
    whole = trainer._state()
    weights_of_ema = trainer.ema.state_dict()
    name = next(key for key in whole.tensors if key.startswith("generator."))
    broken = [
        replace(whole, progress={"images_seen": 0}),
        replace(whole, tensors={key: value for key, value in whole.tensors.items() if key != name}),
        replace(whole, tensors={**whole.tensors, name: torch.ones(1, 2, 3)}),
    ]
    for state in broken:
        with pytest.raises(CheckpointError, match="cannot be resumed") as caught:
            trainer.restore(state, weights_of_ema)
        assert "\n" not in str(caught.value)


def test_time_limit_ends_a_run_cleanly(tmp_path: Path, accelerator: Accelerator):
    trainer = tiny_trainer(tiny_config(kimg=1000.0, max_minutes=0.01), tmp_path / "run", accelerator)
    trainer.run.create("")
    trainer.train()
    assert 0 < trainer.images_seen < 100_000
    assert read_generator(find_generator(trainer.run.path)).images_seen == trainer.images_seen


def test_fresh_fakes_are_other_scenes_than_the_generators(tmp_path: Path, accelerator: Accelerator):
    for reuse in (False, True):
        trainer = tiny_trainer(tiny_config(reuse_fakes=reuse), tmp_path / str(reuse), accelerator)
        draws, fresh = trainer.batches.fakes(0, 0, 0)
        assert (fresh is None) == reuse
        if fresh is not None:
            assert fresh.camera_labels.shape[1] == 1
            assert not torch.equal(fresh.z, draws.z)


def test_broken_numbers_stop_the_run_and_name_themselves(tmp_path: Path, accelerator: Accelerator):
    trainer = tiny_trainer(tiny_config(), tmp_path / "run", accelerator)
    trainer.run.create("")
    with torch.no_grad():
        next(trainer.steps.discriminator.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"broke down at step 1 .*real_logits.*there is no checkpoint yet"):
        trainer.train()
    assert not list_checkpoints(trainer.run.checkpoints)


def test_clipping_acts_once_on_the_whole_gradient(tmp_path: Path, accelerator: Accelerator):
    config = tiny_config()
    config = replace(config, training=replace(
        config.training, optimizer=replace(config.training.optimizer, generator_clip_norm=1e-3)))  # fmt: skip
    trainer = tiny_trainer(config, tmp_path / "run", accelerator)
    norms: list[float] = []

    def record(*_: object) -> None:
        parameters = trainer.steps.generator.parameters()
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).item())

    trainer.generator_updater.adam.register_step_pre_hook(record)
    before = trainer.train_step()["generator_gradient_norm"]
    assert before > 1e-2
    assert norms == pytest.approx([1e-3], rel=1e-3)


def test_batch_must_divide_over_the_processes(tmp_path: Path):
    three = Mock(spec=Accelerator, num_processes=3, process_index=0, device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"training.batch_size: 8 does not divide over 3 processes"):
        tiny_trainer(tiny_config(), tmp_path, three)
    one = Mock(spec=Accelerator, num_processes=1, process_index=0, device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"8 does not divide over 1 processes in 3 parts each \(training.accumulate\)"):
        tiny_trainer(tiny_config(accumulate=3), tmp_path, one)
