"""Images per second and peak memory of a full training iteration: generator with all views, discriminator, lazy R1.

Usage: ``python benchmarks/training_step.py [--configs heads128 ffhq256 ffhq512] [--precisions no bf16] [--steps 32]``.
Runs on the GPU where there is one, else on the CPU. Every row trains on 64 procedural heads of the config's size, made
on the spot; the nets are the config's. ``tf32`` is fp32 with TensorFloat-32 matrix products and convolutions. The step
is also timed with one rasterizer call per view and scene, as published code does, to show what batching gains.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
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
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.trainer import Trainer
from cgsgan.types import Gaussians

RESULTS = Path(__file__).parent / "results" / "training_step.json"
CONFIGS = Path(__file__).parents[1] / "configs"
PRECISIONS = ("no", "tf32", "bf16")
WARM_UP = 4


def make_trainer(name: str, precision: str, batch: int, folder: Path) -> Trainer:
    """A trainer of a config on a small procedural set."""
    config = load_config(CONFIGS / f"{name}.yaml")
    synthetic = SyntheticConfig(count=64, resolution=config.resolution, seed=0)
    data = replace(config.data, path=None, synthetic=synthetic)
    mixed = "bf16" if precision == "bf16" else "no"
    training = replace(config.training, batch_size=batch or config.training.batch_size, mixed_precision=mixed)
    config = replace(config, data=data, training=training)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
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


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["heads128", "ffhq256", "ffhq512"])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=0, help="scenes per step; 0: the config's")
    parser.add_argument("--steps", type=int, default=32, help="a multiple of the R1 interval")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.configs:
        for precision in arguments.precisions:
            for singly in (False, True) if precision == arguments.precisions[-1] else (False,):
                with tempfile.TemporaryDirectory() as folder:
                    trainer = make_trainer(name, precision, arguments.batch, Path(folder))
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
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
