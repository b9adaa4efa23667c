"""Run by test_crashes: kills a tiny training again and again, resumes it until it is done, and says what happened.

Everything is imported once; the processes that train are forked from here, so that a life of a process is training and
not importing. They use one thread each: a fork copies no threads.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from cgsgan import experiment
from cgsgan.config import ExperimentConfig
from cgsgan.data.synthetic import SyntheticConfig
from cgsgan.training import checkpoint
from cgsgan.training.interruption import exit_code
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.trainer import Trainer
from tests.tiny_experiment import tiny_config


def crash_config(kimg: float) -> ExperimentConfig:
    """The tiny experiment on procedural heads, with a checkpoint after every other step."""
    config = tiny_config(kimg=kimg, checkpoint_kimg=0.016, log_kimg=0.032, sample_kimg=0.16, keep_checkpoints=2)
    return replace(config, data=replace(config.data, synthetic=SyntheticConfig(count=32, resolution=32)))


def train(folder: Path, kimg: float, *, slow_saves: bool) -> int:
    """Start or resume; gives the exit code of the command line."""
    if slow_saves:
        plain = checkpoint._sync

        def slow(path: Path) -> None:
            time.sleep(0.02)
            plain(path)

        checkpoint._sync = slow
    plain_step = Trainer.train_step

    def step_marked(trainer: Trainer) -> dict[str, torch.Tensor]:
        if trainer.accelerator.is_main_process:
            with marker(folder).open("ab") as steps:
                steps.write(b".")
        return plain_step(trainer)

    Trainer.train_step = step_marked
    run = RunFolder(folder)
    received = experiment.train(crash_config(kimg), run, resume=run.config.is_file()).stopped_by
    return 0 if received is None else exit_code(received)


def start(folder: Path, kimg: float, *, rank: int = 0, world: int = 1, port: int = 0, slow_saves: bool = True) -> int:
    """A training process; returns its number."""
    process = os.fork()
    if process:
        return process
    if world > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    log = os.open(f"{folder}.{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        code = train(folder, kimg, slow_saves=slow_saves)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def start_all(folder: Path, kimg: float, world: int, *, slow_saves: bool) -> list[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [start(folder, kimg, rank=r, world=world, port=port, slow_saves=slow_saves) for r in range(world)]


def wait_for(processes: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def marker(folder: Path) -> Path:
    """Holds a byte for each step that a life has begun."""
    return folder.with_name(f"{folder.name}.steps")


def begun_steps(folder: Path) -> int:
    return marker(folder).stat().st_size if marker(folder).exists() else 0


def lives(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def killed_life(folder: Path, kimg: float, world: int, *, steps: int, seconds: float, victim: int) -> list[int]:
    """Start all processes, kill one of them after a while, let the others see it, end them; gives their exit codes.

    The while is a number of begun steps and then a time, so that lives get as far on a busy machine as on a quiet one.
    """
    marker(folder).unlink(missing_ok=True)
    processes = start_all(folder, kimg, world, slow_saves=True)
    while begun_steps(folder) < steps and all(map(lives, processes)):
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(processes[victim], signal.SIGKILL)
    time.sleep(0.05 * (world - 1))
    for process in processes:
        os.kill(process, signal.SIGKILL)  # also one that has ended: nobody has waited for it yet
    return wait_for(processes)


def stopped_life(folder: Path, kimg: float, world: int, *, victim: int) -> list[int]:
    """Start all processes and, once they train, ask one of them to stop; gives their exit codes."""
    before = newest(folder)
    processes = start_all(folder, kimg, world, slow_saves=False)
    while newest(folder) == before:
        time.sleep(0.01)
    os.kill(processes[victim], signal.SIGTERM)
    return wait_for(processes)


def newest(folder: Path) -> str:
    return max((path.name for path in (folder / "checkpoints").glob("kimg-*")), default="none")


def import_lazy_parts() -> None:
    """What torch imports when an optimiser is first made, a second's work."""
    torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
    importlib.import_module("rasterizer.backend")


def seconds_per_step(folder: Path, kimg: float, world: int) -> tuple[list[int], float]:
    """An uninterrupted run; gives its exit codes and what a step took, with its share of checkpoints."""
    processes = start_all(folder, kimg, world, slow_saves=False)
    while not marker(folder).exists() and all(map(lives, processes)):
        time.sleep(0.002)
    begun = time.perf_counter()
    codes = wait_for(processes)
    return codes, (time.perf_counter() - begun) / max(1, begun_steps(folder))


def main(out: Path, kills: int, world: int, kimg: float) -> None:
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)  # a process that cannot open its log would leave the others waiting for it
    import_lazy_parts()
    os.environ["CGSGAN_CACHE"] = str(out / "cache")
    chance = random.Random(f"{kills} kills of {world}")
    begun = time.perf_counter()
    whole, pace = seconds_per_step(out / "whole", kimg, world)
    report: dict[str, object] = {"whole": whole, "seconds_per_step": pace}
    folder = out / "killed"
    ends, leftovers, moments = [], [], []
    for _ in range(kills):
        steps, wait, victim = chance.randrange(5), chance.uniform(0, 3 * pace), chance.randrange(world)
        ends.append(killed_life(folder, kimg, world, steps=steps, seconds=wait, victim=victim)[victim])
        leftovers.append([path.name for path in (folder / "checkpoints").glob(".*")])
        moments.append(newest(folder))
    report |= {"lives": ends, "leftovers": leftovers, "moments": moments}
    report["stopped"] = stopped_life(folder, kimg, world, victim=world - 1)
    report["last"] = wait_for(start_all(folder, kimg, world, slow_saves=False))
    report["seconds"] = time.perf_counter() - begun
    (out / "report.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
