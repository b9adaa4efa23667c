"""From where generated heads are seen, against the camera that was asked for: what training without labels is worth.

A small network, taught the poses of the real set (``cgsgan.metrics.pose``), looks at pictures of each generator from
given yaws. Its mean follows the camera if heads turn as they should; its spread says how far the fronts of different
heads point apart, which nothing but labels holds together.

    python benchmarks/poses.py runs/heads64 runs/heads64_poseless --data heads128.zip --out poses.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from accelerate import Accelerator

from cgsgan.cameras import orbit
from cgsgan.data.dataset import DataConfig, HeadDataset, open_dataset
from cgsgan.evaluation import GeneratorScenes
from cgsgan.evaluation.pose import TaughtEstimator, learn_poses
from cgsgan.evaluation.studio import Studio
from cgsgan.gallery import generate_scenes, render_views
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.metrics.pose import reduce_pictures

YAWS = (-50.0, -40.0, -20.0, 0.0, 20.0, 40.0, 50.0)
"""Degrees."""
BATCH = 32


def main() -> None:
    """Measure every run, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, checkpoints or generator files")
    parser.add_argument("--data", required=True, help="the real set, with labels")
    parser.add_argument("--heads", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "poses.json")
    arguments = parser.parse_args()
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    found: dict[str, dict[str, list[float]]] = {}
    print(f"{'yaw found at':32s}" + "".join(f"{yaw:14.0f}" for yaw in YAWS))
    datasets: dict[int, HeadDataset] = {}
    for run in arguments.runs:
        generator = load_generator(run, device=accelerator.device)
        size = generator.resolution
        if size not in datasets:
            datasets[size] = open_dataset(DataConfig(path=arguments.data, resolution=size, x_flip=False))
        taught = learn_poses(Studio(GeneratorScenes(generator), accelerator), datasets[size])
        if taught is None:
            raise SystemExit(f"--data {arguments.data}: too few pictures to learn poses from")
        found[str(run)] = look(generator, taught, arguments.heads)
        cells = zip(found[str(run)]["mean"], found[str(run)]["spread"], strict=True)
        print(f"{str(run)[-31:]:32s}" + "".join(f"{mean:8.1f} +-{spread:4.1f}" for mean, spread in cells))
    arguments.out.write_text(json.dumps({"yaws": YAWS, "heads": arguments.heads, "runs": found}, indent=1) + "\n")
    print(f"wrote {arguments.out}")


@torch.no_grad()
def look(generator: TrainedGenerator, taught: TaughtEstimator, heads: int) -> dict[str, list[float]]:
    """Mean and standard deviation over heads of the yaw that is seen at each of :data:`YAWS`, degrees."""
    yaw = torch.tensor(YAWS).deg2rad()
    cameras = orbit(yaw, torch.zeros_like(yaw))
    z = torch.randn(heads, generator.z_dim, generator=torch.Generator().manual_seed(11))
    parts = []
    for part in z.split(BATCH):
        scenes = generate_scenes(generator, part.to(generator.device))
        images = render_views(generator.renderer, scenes, cameras, size=generator.resolution).cpu()
        angles = taught.estimator(reduce_pictures(images.flatten(0, 1).clamp(0, 1)))
        parts.append(angles[:, 0].unflatten(0, (len(part), len(YAWS))))
    seen = torch.cat(parts).rad2deg()
    return {"mean": seen.mean(dim=0).tolist(), "spread": seen.std(dim=0).tolist(), "floor": taught.floor.tolist()}


if __name__ == "__main__":
    main()
