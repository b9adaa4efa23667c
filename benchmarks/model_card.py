"""Writes the model card of a generator: what it is, how good it is, and pictures to judge it by.

    python benchmarks/model_card.py cgsgan/assets/generator.safetensors --data heads128.zip --eval heads128_eval.zip

Figures are measured (as `cgsgan evaluate` does, with the real set's own halves and grey beside them) unless --figures
names those of an earlier card. --remarks names a text file that says what is to be seen; nobody else can write that.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from card_neighbors import compare_with_training, draw_samples, save_distributions, save_neighbors
from card_pictures import save_agreement, save_grid_of_seeds, save_shapes, save_turning_heads
from card_text import write_card
from metric_scale import damaged, measure_scale, read_halves

from cgsgan.cameras import Cameras, yaw_pitch
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.data.depth_truth import open_depth_truth
from cgsgan.data.progress import progress_bar
from cgsgan.evaluation import EvaluationConfig, Evaluator, GeneratorScenes
from cgsgan.evaluation.settings import SELF_SUFFICIENT
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.metrics.extractors import FeatureExtractor, open_extractor
from cgsgan.metrics.figures import compare_yaw_bins
from cgsgan.training.checkpoint import SHIPPED_FILE

RESULTS = Path(__file__).parent / "results" / "model_card.json"
NEIGHBOR_SIZE = 64


def measure(arguments: argparse.Namespace, generator: TrainedGenerator, extractor: FeatureExtractor) -> dict[str, Any]:
    """The figures of `cgsgan evaluate`, and the bounds of the set distances."""
    identity = (
        open_extractor("dinov2", model=arguments.identity_model, weights=arguments.identity_weights)
        if arguments.identity_model
        else None
    )
    metrics = (*SELF_SUFFICIENT, "depth", *(["identity"] if identity else []))
    config = EvaluationConfig(metrics=metrics, count=arguments.count, repeats=arguments.repeats)
    with progress_bar() as progress:
        dataset = open_dataset(
            DataConfig(path=arguments.data, resolution=generator.resolution, x_flip=False), progress=progress
        )
        found = Evaluator(
            GeneratorScenes(generator), dataset, extractor, config, Accelerator(cpu=True), progress, identity,
            open_depth_truth(arguments.eval),
        ).measure()  # fmt: skip
    real, other = read_halves(arguments.data, generator.resolution, min(arguments.count, len(dataset) // 2))
    chosen = {name: images for name, images in damaged(other).items() if name in ("other real pictures", "grey")}
    bounds = measure_scale(extractor, real, chosen)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[: 2 * len(real)]  # as the halves
    yaws = yaw_pitch(Cameras.from_labels(dataset.labels[order]))[0].split(len(real))
    bounds["other real pictures"] |= compare_yaw_bins((extractor(real), yaws[0]), (extractor(other), yaws[1]))
    return found | {"bounds": bounds, "bound_pictures": len(real), "data": Path(arguments.data).name}


def make_pictures(arguments: argparse.Namespace, generator: TrainedGenerator, extractor: FeatureExtractor) -> dict:
    """Every picture of the card; returns the figures of the nearest neighbours."""
    out: Path = arguments.out
    save_grid_of_seeds(out / "grid.webp", generator)
    save_turning_heads(out / "turntable.webp", generator)
    save_agreement(out / "agreement.webp", generator)
    save_shapes(out / "shapes.webp", generator, open_depth_truth(arguments.eval))
    training = open_dataset(DataConfig(path=arguments.data, resolution=NEIGHBOR_SIZE, x_flip=True))
    held_out = open_dataset(DataConfig(path=arguments.eval, resolution=NEIGHBOR_SIZE, x_flip=False))
    samples = draw_samples(generator, held_out.labels)
    found = compare_with_training(samples, held_out.read(range(len(held_out))).premultiplied, training, extractor)
    save_neighbors(out / "neighbors.webp", samples, found, training)
    save_distributions(out / "neighbors.png", found)
    return found.figures()


def main() -> int:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="run or checkpoint; default the shipped generator")
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--eval", required=True, help="other persons from fixed cameras, with depth_landmarks.npz")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--features", default="random")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--identity-model")
    parser.add_argument("--identity-weights", type=Path)
    parser.add_argument("--figures", type=Path, help="an earlier results/model_card.json: measure nothing again")
    parser.add_argument("--remarks", type=Path, help="text that says what the pictures show")
    parser.add_argument("--out", type=Path, default=SHIPPED_FILE.parent)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    arguments = parser.parse_args()
    try:
        generator = load_generator(arguments.checkpoint)
        extractor = open_extractor(arguments.features, weights=arguments.weights)
        if arguments.figures:
            found = json.loads(arguments.figures.read_text())
        else:
            found = measure(arguments, generator, extractor)
        arguments.out.mkdir(parents=True, exist_ok=True)
        found["neighbors"] = make_pictures(arguments, generator, extractor)
        remarks = arguments.remarks.read_text() if arguments.remarks else ""
        write_card(arguments.out / "README.md", generator, found, remarks, torch.__version__)
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    except (ValueError, OSError) as error:
        print(f"model_card: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.out / 'README.md'} with its pictures, and {arguments.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
