"""Images per second of one and of two processes at the same global batch, and what many GPUs would pay for talking.

    python benchmarks/scaling.py [--config quickstart] [--batch 16] [--steps 24] [--rounds 3]

Runs a short training three ways, in turn, ``--rounds`` times: one process with one thread, two processes with one
thread each (torchrun, gloo), one process with two threads; the table holds the fastest round of each, and how much of
it went into collective calls. Then it prints the communication model of ``benchmarks/README.md`` (``--model-only``:
nothing else): ring all-reduce of the gradients of both networks of a preset, with the assumptions that stand below.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from cgsgan.config import ExperimentConfig, load_config
from cgsgan.data.synthetic import SyntheticConfig
from cgsgan.experiment import build_generator, build_trainer
from cgsgan.models.discriminator import Discriminator
from cgsgan.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "scaling.json"
WAYS = ((1, 1), (2, 1), (1, 2))
"""Processes, threads of each."""
WARM_UP = 4


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What GPUs talk through; assumptions, not measurements.

    Attributes:
        name: for the table.
        gpus: all together, eight to a node.
        bandwidth: bytes per second that a ring gets through its narrowest place, one direction.
        latency: seconds from one GPU of the ring to the next.
    """

    name: str
    gpus: int
    bandwidth: float
    latency: float


CLUSTERS = (
    Cluster(name="8, NVLink 4", gpus=8, bandwidth=300e9, latency=3e-6),
    Cluster(name="64, 8 x 400 Gbit/s per node", gpus=64, bandwidth=300e9, latency=8e-6),
    Cluster(name="64, 1 x 200 Gbit/s per node", gpus=64, bandwidth=20e9, latency=8e-6),
    Cluster(name="512, 8 x 400 Gbit/s per node", gpus=512, bandwidth=300e9, latency=8e-6),
    Cluster(name="512, 1 x 200 Gbit/s per node", gpus=512, bandwidth=20e9, latency=8e-6),
)
STEP_SECONDS = (0.55, 0.15)
"""A step of 8 images on one H100: as published (12 GPU-days for 15,000 kimg), and nearly four times as fast."""


def measure(config: ExperimentConfig, steps: int, out: Path) -> None:
    """One process's part of a measurement; the main one writes the result."""
    accelerator = Accelerator(cpu=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, RunFolder(Path(folder) / "run"), accelerator)
        reduce, talking = accelerator.reduce, [0.0]

        def timed_reduce(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            result = reduce(*arguments, **options)
            talking[0] += time.perf_counter() - begun
            return result

        accelerator.reduce = timed_reduce  # type: ignore[method-assign]
        for _ in range(WARM_UP):
            trainer.train_step()
        accelerator.wait_for_everyone()
        talking[0], start = 0.0, time.perf_counter()
        for _ in range(steps):
            trainer.train_step()
        accelerator.wait_for_everyone()
        seconds = time.perf_counter() - start
    if accelerator.is_main_process:
        found = {"images_per_s": steps * config.training.batch_size / seconds, "talking": talking[0] / seconds}
        out.write_text(json.dumps(found))
    accelerator.end_training()


def launch(arguments: argparse.Namespace, processes: int, threads: int) -> dict[str, float]:
    """Measure in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        options = ["--config", arguments.config, "--batch", str(arguments.batch), "--steps", str(arguments.steps)]
        command = [sys.executable, *(torchrun if processes > 1 else []), __file__, *options, "--worker", str(out)]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return json.loads(out.read_text())


def gradient_bytes(config: ExperimentConfig) -> tuple[int, int]:
    """What one all-reduce of each network carries: its trained parameters in float32."""
    with torch.device("meta"):
        networks = (build_generator(config.generator), Discriminator(config.discriminator))
    generator, discriminator = (sum(4 * p.numel() for p in n.parameters() if p.requires_grad) for n in networks)
    return generator, discriminator


def model(config: ExperimentConfig, cluster: Cluster) -> float:
    """Seconds per step in all-reduces: 2 (n - 1) / n of the bytes through the ring, in 2 (n - 1) messages each.

    Nothing is hidden behind computation: gradients are reduced once, when they are complete; the discriminator's once
    more in every step with a penalty.
    """
    generator, discriminator = gradient_bytes(config)
    updates = 1 + 1 / config.training.loss.r1_interval
    hops = 2 * (cluster.gpus - 1)
    sent = hops / cluster.gpus * (generator + updates * discriminator)
    # Two small ones besides: the running mean of w, and what all agree on after a step.
    return sent / cluster.bandwidth + (1 + updates + 2) * hops * cluster.latency


def print_model(preset: str) -> list[dict[str, float | str]]:
    """The table of the model."""
    config = load_config(ROOT / "configs" / f"{preset}.yaml")
    generator, discriminator = gradient_bytes(config)
    title = f"{preset}: gradients {generator / 1e6:.0f} MB (generator), {discriminator / 1e6:.0f} MB (discriminator)"
    table = Table("GPUs", "ms in all-reduces", *(f"efficiency at {s:g} s a step" for s in STEP_SECONDS), title=title)
    rows: list[dict[str, float | str]] = []
    for cluster in CLUSTERS:
        seconds = model(config, cluster)
        shares = [step / (step + seconds) for step in STEP_SECONDS]
        table.add_row(cluster.name, f"{1e3 * seconds:.1f}", *(f"{100 * share:.1f} %" for share in shares))
        rows.append(
            {"cluster": cluster.name, "ms": 1e3 * seconds, "efficiency": shares[0], "efficiency_fast": shares[1]}
        )
    Console().print(table)
    return rows


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--batch", type=int, default=16, help="scenes per step, over all processes")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="ffhq512", help="of the communication model")
    parser.add_argument("--model-only", action="store_true")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.worker:
        config = load_config(ROOT / "configs" / f"{arguments.config}.yaml")
        data = replace(config.data, path=None, synthetic=SyntheticConfig(count=64, resolution=config.resolution))
        config = replace(config, data=data, training=replace(config.training, batch_size=arguments.batch))
        measure(config, arguments.steps, arguments.worker)
        return 0
    rows: list[dict[str, Any]] = []
    if not arguments.model_only:
        rounds = [[launch(arguments, *way) for way in WAYS] for _ in range(arguments.rounds)]
        best = [max(found, key=lambda row: row["images_per_s"]) for found in zip(*rounds)]
        table = Table("processes x threads", "images/s", "against one", "in collective calls", title=arguments.config)
        for (processes, threads), row in zip(WAYS, best):
            speed, share = row["images_per_s"], row["talking"]
            cells = (f"{speed:.1f}", f"{speed / best[0]['images_per_s']:.2f}", f"{100 * share:.1f} %")
            table.add_row(f"{processes} x {threads}", *cells)
            rows.append({"processes": processes, "threads": threads, **row})
        Console().print(table)
    modelled = print_model(arguments.preset)
    if not arguments.model_only:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        written = {"config": arguments.config, "batch": arguments.batch, "rows": rows, "model": modelled}
        arguments.out.write_text(json.dumps({**written, "torch": torch.__version__}, indent=1) + "\n")
        print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
