"""Runs that are killed, stopped, out of space or locked out go on as if nothing had been."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from cgsgan.training.checkpoint import (
    clean_checkpoints,
    find_generator,
    list_checkpoints,
    note_score,
    prune_checkpoints,
    read_training_state,
    save_checkpoint,
)
from cgsgan.training.generator_file import CheckpointError, read_generator
from cgsgan.training.log import read_log, trim_log
from tests.tiny_experiment import tiny_config, tiny_trainer
from tests.training.test_checkpoint import STATE, generator_file

ROOT = Path(__file__).parents[2]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


@linux_only
@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills", "kimg"), [(1, 30, 1.2), (2, 30, 1.2)])
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path: Path, processes: int, kills: int, kimg: float):
    script = [str(ROOT / "tests/training/crashing_run.py"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *script, str(kills), str(processes), str(kimg)],
        check=False, capture_output=True, text=True, timeout=300, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["whole"] == [0] * processes
    assert report["lives"] == [-9] * kills  # every one was alive when it was killed
    assert report["stopped"] == [143] * processes  # one was asked to stop, all did, at the same step
    assert report["last"] == [0] * processes
    assert len(set(report["moments"])) > kills / 6  # it got on between the kills
    if processes == 1:
        assert sum(bool(names) for names in report["leftovers"]) >= 3  # killed while saving

    whole, killed = (list_checkpoints(tmp_path / name / "checkpoints") for name in ("whole", "killed"))
    assert [path.name for path in whole] == [path.name for path in killed]
    for ours, theirs in zip(killed, whole, strict=True):
        for name in ("training.safetensors", "generator.safetensors"):
            a, b = load_file(ours / name), load_file(theirs / name)
            assert a.keys() == b.keys()
            assert all(torch.equal(a[key], b[key]) for key in a), name
        assert (ours / "state.json").read_text() == (theirs / "state.json").read_text()
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))
    rows = [[row["kimg"] for row in read_log(tmp_path / name / "log.jsonl")] for name in ("whole", "killed")]
    assert rows[0] == rows[1]  # nothing twice, nothing missing


def run_until_half(folder: Path, accelerator: Accelerator):
    trainer = tiny_trainer(tiny_config(kimg=0.032), folder, accelerator)
    trainer.run.create("")
    trainer.train()
    trainer.train_step()
    return trainer


def holds(checkpoint: Path, images_seen: int) -> None:
    assert read_generator(find_generator(checkpoint)).images_seen == images_seen
    assert read_training_state(checkpoint).tensors


@linux_only
@pytest.mark.parametrize("limit", [0, 10_000, 100_000])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, accelerator: Accelerator, limit: int):
    trainer = run_until_half(tmp_path / "run", accelerator)
    last = trainer.run.latest_checkpoint()
    sizes = [path.stat().st_size for path in last.iterdir()]
    assert sorted(sizes)[-2] < 100_000 < max(sizes)  # that limit falls into the second file
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(CheckpointError, match=r"could not be written .*kimg-00000.032, is intact") as caught:
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert [path.name for path in trainer.run.checkpoints.iterdir()] == [last.name]
    holds(last, 32)
    trainer.save()  # there is room again
    holds(trainer.run.latest_checkpoint(), 40)


def in_another_process(work: Callable[[], None]) -> str:
    """The error of ``work`` for a user who may not write everywhere, as root may."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            work()
            os.write(write, b"no error")
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.wait()
    os.close(write)
    with os.fdopen(read) as pipe:
        return pipe.read()


@linux_only
def test_a_folder_that_cannot_be_written_leaves_the_last_checkpoint():
    with tempfile.TemporaryDirectory() as name:  # others may not enter pytest's folders
        folder = Path(name)
        last = save_checkpoint(folder, generator_file(1500), STATE)
        folder.chmod(0o555)
        message = in_another_process(lambda: save_checkpoint(folder, generator_file(3000), STATE))
        assert message.startswith("CheckpointError")
        assert "Permission denied" in message
        assert "kimg-00001.500, is intact" in message
        assert "\n" not in message
        assert [path.name for path in folder.iterdir()] == [last.name]
        holds(last, 1500)
        folder.chmod(0o755)


def test_leftovers_go_and_a_checkpoint_on_its_way_out_comes_back(tmp_path: Path):
    for seen in (1000, 2000, 3000):
        save_checkpoint(tmp_path, generator_file(seen), STATE)
    (tmp_path / "kimg-00003.000").rename(tmp_path / ".kimg-00003.000.replaced")  # killed between the two renames
    (tmp_path / "kimg-00001.000").rename(tmp_path / ".kimg-00001.000.removed")
    (tmp_path / ".kimg-00004.000.partial").mkdir()
    assert clean_checkpoints(tmp_path) == [".kimg-00001.000.removed", ".kimg-00004.000.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kimg-00002.000", "kimg-00003.000"]
    assert read_generator(find_generator(tmp_path)).images_seen == 3000


def test_milestones_and_the_best_stay(tmp_path: Path):
    for kimg in range(1, 13):
        path = save_checkpoint(tmp_path, generator_file(kimg * 1000), STATE, keep=2, milestone_kimg=4.0)
        if kimg == 6:
            assert note_score(path, "fid", 20.0)
        if kimg == 7:
            assert not note_score(path, "fid", 30.0)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == [f"kimg-{kimg:05d}.000" for kimg in (4, 6, 8, 11, 12)]
    assert note_score(tmp_path / names[-1], "fid", 10.0)
    prune_checkpoints(tmp_path, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == [names[-1]]


def test_a_log_is_cut_back_to_the_checkpoint(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    rows = [{"kimg": 1.0}, {"event": "rollback", "kimg": 9.0}, {"kimg": 2.0}, {"kimg": 3.0}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kimg": 4.')
    assert read_log(log) == rows
    trim_log(log, 2.0)
    assert read_log(log) == rows[:3]
    assert log.read_text().endswith("}\n")
