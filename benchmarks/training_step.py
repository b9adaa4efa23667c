"""Images per second and peak memory of a full training iteration: generator with all views, discriminator, lazy R1.

    python benchmarks/training_step.py [--configs heads128 ffhq256 ffhq512] [--precisions no bf16] [--steps 32]
    python benchmarks/training_step.py --parts --configs quickstart ffhq256 --batch 4 --steps 3   # where the time goes

Runs on the GPU where there is one, else on the CPU. Every row trains on 64 procedural heads of the config's size, made
on the spot; the nets are the config's. ``tf32`` is fp32 with TensorFloat-32 matrix products and convolutions. The step
is also timed with one rasterizer call per view and scene, as published code does, to show what batching gains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from cgsgan.config import load_config
from cgsgan.data.synthetic import SyntheticConfig
from cgsgan.experiment import build_trainer
from cgsgan.training import trainer as trainer_module
from cgsgan.training.draws import FakeDraws
from cgsgan.training.judged import JudgedImages
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.trainer import Trainer
from cgsgan.types import Gaussians, SceneOutput

RESULTS = Path(__file__).parent / "results" / "training_step.json"
CONFIGS = Path(__file__).parents[1] / "configs"
PRECISIONS = ("no", "tf32", "bf16")
WARM_UP = 4
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
R1 = "R1, spread over its interval"
FRESH = "fresh fakes for D: G and rasterizer forward"


def make_trainer(name: str, precision: str, batch: int, folder: Path, *, compiled: bool = False) -> Trainer:
    """A trainer of a config on a small procedural set."""
    config = load_config(CONFIGS / f"{name}.yaml")
    synthetic = SyntheticConfig(count=64, resolution=config.resolution, seed=0)
    data = replace(config.data, path=None, synthetic=synthetic)
    mixed = "bf16" if precision == "bf16" else "no"
    training = replace(
        config.training,
        batch_size=batch or config.training.batch_size,
        mixed_precision=mixed,
        tf32=precision == "tf32",
        compile=compiled,
    )
    config = replace(config, data=data, training=training)
    accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
    return build_trainer(config, RunFolder(folder / "run"), accelerator)


def render_singly(trainer: Trainer) -> None:
    """Let every scene be splatted by a call of its own."""
    whole = trainer.steps.renderer

    def render(scenes: Gaussians, cameras: Any, *, size: int, backgrounds: torch.Tensor, depth: bool = False) -> Any:
        parts = [
            whole(
                scenes.map(lambda t, i=i: t[i : i + 1]), cameras.map(lambda t, i=i: t[i : i + 1]), size=size,
                backgrounds=backgrounds[i : i + 1], depth=depth,
            )
            for i in range(len(scenes.means))
        ]  # fmt: skip
        return replace(
            parts[0],
            images=torch.cat([part.images for part in parts]),
            alphas=torch.cat([part.alphas for part in parts]),
        )

    trainer.steps.renderer = render  # type: ignore[assignment]


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(trainer: Trainer, steps: int) -> dict[str, float]:
    """Images per second over ``steps`` steps after a warm-up, and the peak of GPU memory."""
    for _ in range(WARM_UP):
        trainer.train_step()
    synchronize()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(steps):
        trainer.train_step()
    synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return {
        "images_per_s": steps * trainer.config.batch_size / seconds,
        "ms_per_step": 1e3 * seconds / steps,
        "peak_gib": peak,
    }


class Timeline:
    """Gives every moment of a step to one part of it: the time since the last mark belongs to the part that ends."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._step: defaultdict[str, float] = defaultdict(float)
        self._last = clock()

    def mark(self, part: str) -> None:
        synchronize()
        now = self._clock()
        self._step[part] += now - self._last
        self._last = now

    def end_step(self) -> None:
        self.mark("other")
        for part, seconds in self._step.items():
            self.seconds[part].append(seconds)
        self._step.clear()

    def begin_step(self, *, forget: bool) -> None:
        synchronize()
        if forget:
            self.seconds.clear()
        self._step.clear()
        self._last = self._clock()

    def watch(self, owner: object, method: str, part: str, before: str = "other") -> None:
        """Time the calls of a method; what has passed before one belongs to ``before``."""
        plain = getattr(owner, method)

        def watched(*arguments: Any, **options: Any) -> Any:
            self.mark(before)
            result = plain(*arguments, **options)
            self.mark(part)
            return result

        setattr(owner, method, watched)


def watch_iteration(trainer: Trainer, clock: Callable[[], float]) -> Timeline:
    """Marks at the joints of a training iteration; backward passes are cut where gradients arrive."""
    line, steps = Timeline(clock), trainer.steps
    generate, render = steps._generate, steps._render
    before_render = "other"

    def generate_marked(draws: FakeDraws) -> SceneOutput:
        nonlocal before_render
        line.mark("other")
        output = generate(draws)
        line.mark("G forward" if torch.is_grad_enabled() else FRESH)
        before_render = "other"
        hooked = [tensor for tensor in output.scenes.tensors() if tensor.requires_grad]
        arrived: list[bool] = []

        def arrive(_gradient: torch.Tensor) -> None:
            if not arrived:  # the first gradient to come back to a scene ends the rasterizer's backward passes
                arrived.append(True)
                line.mark("rasterizer backward")

        for tensor in hooked:
            tensor.register_hook(arrive)
        return output

    def render_marked(*arguments: Any) -> JudgedImages:
        nonlocal before_render
        line.mark(before_render)
        pictures = render(*arguments)
        line.mark("rasterizer forward" if torch.is_grad_enabled() else FRESH)
        if pictures.images.requires_grad:
            before_render = "rasterizer backward"  # of the view before
            pictures.images.register_hook(lambda _: line.mark("D on fakes for G, forward and backward"))
        return pictures

    steps._generate, steps._render = generate_marked, render_marked  # type: ignore[method-assign]
    line.watch(steps, "generator_gradients", "G backward")
    line.watch(steps, "discriminator_gradients", "D step")
    line.watch(steps, "penalty_gradients", R1)
    line.watch(trainer.generator_updater, "step", "Adam and EMA")
    line.watch(trainer.discriminator_updater, "step", "Adam and EMA")
    line.watch(trainer.batches, "fakes", "data and draws")
    line.watch(trainer.batches, "reals", "data and draws")
    line.watch(trainer_module, "update_ema", "Adam and EMA")
    return line


def measure_iteration(trainer: Trainer, steps: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds of every part of a step, the medians of ``steps`` steps; R1 is spread over its interval."""
    line, interval = watch_iteration(trainer, clock), trainer.config.loss.r1_interval
    for step in range(1 + steps):
        trainer.step_index = 0 if step == 0 else interval + step - 1  # a warm-up, then one with a penalty first
        line.begin_step(forget=step == 1)
        trainer.train_step()
        line.end_step()
    medians = {part: 1e3 * statistics.median(seconds) for part, seconds in line.seconds.items()}
    medians[R1] /= interval
    return medians


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["heads128", "ffhq256", "ffhq512"])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=0, help="scenes per step; 0: the config's")
    parser.add_argument("--steps", type=int, default=32, help="a multiple of the R1 interval")
    parser.add_argument("--parts", action="store_true", help="where the time of an iteration goes, in fp32")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="of --parts; cpu is steady on a busy machine")
    parser.add_argument("--compile", action="store_true", help="training.compile")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return measure_parts(arguments) if arguments.parts else measure_precisions(arguments)


def measure_parts(arguments: argparse.Namespace) -> int:
    """Print and write the share of every part."""
    rows: list[dict[str, Any]] = []
    for name in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(name, "no", arguments.batch, Path(folder), compiled=arguments.compile)
            parts = measure_iteration(trainer, arguments.steps, CLOCKS[arguments.clock])
            total = sum(parts.values())
            table = Table("part", "ms", "share", title=f"{name}: batch {trainer.config.batch_size}, {total:.0f} ms")
            for part, milliseconds in parts.items():
                table.add_row(part, f"{milliseconds:.1f}", f"{100 * milliseconds / total:.1f} %")
            Console().print(table)
            batch = trainer.config.batch_size
            rows.append({"config": name, "batch": batch, "images_per_s": 1e3 * batch / total, "ms": parts})
            del trainer
    write(rows, arguments.out or RESULTS.with_name("iteration_parts.json"))
    return 0


def measure_precisions(arguments: argparse.Namespace) -> int:
    """Print and write images per second of every precision."""
    rows: list[dict[str, Any]] = []
    for name in arguments.configs:
        for precision in arguments.precisions:
            for singly in (False, True) if precision == arguments.precisions[-1] else (False,):
                with tempfile.TemporaryDirectory() as folder:
                    trainer = make_trainer(name, precision, arguments.batch, Path(folder), compiled=arguments.compile)
                    if singly:
                        render_singly(trainer)
                    row = measure(trainer, arguments.steps)
                    rows.append({"config": name, "precision": precision, "one_call_per_scene": singly, **row})
                    print(rows[-1], flush=True)
                    del trainer
    table = Table("config", "precision", "one call per scene", "images/s", "ms/step", "peak GiB")
    for row in rows:
        numbers = (f"{row[key]:.1f}" for key in ("images_per_s", "ms_per_step", "peak_gib"))
        table.add_row(row["config"], row["precision"], str(row["one_call_per_scene"]), *numbers)
    Console().print(table)
    write(rows, arguments.out or RESULTS)
    return 0


def write(rows: list[dict[str, Any]], path: Path) -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    raise SystemExit(main())
