"""``cgsgan compare A B [...] [--data PATH] [--out DIR]``: generators side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgsgan.comparison import Comparison
    from cgsgan.config import ExperimentConfig
    from cgsgan.data.dataset import DataConfig

Metric = Literal["fid", "kid", "pr", "swd", "consistency", "similarity", "identity", "depth"]


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Compare two or more generators: size, speed, quality, consistency of views, pictures. One HTML page.

    Attributes:
        generators: run folders, checkpoint folders or generator.safetensors; a .yaml is taken with fresh weights.
        data: folder or zip with a dataset.json, or shards; default what the first one was trained on.
        mask_folder: folder of grey PNG masks of --data, inside the set or on disk.
        metrics: what to measure of the pictures; none with an empty --metrics.
        features: what pictures are described by. random needs no weights, and its FID is no paper's FID.
        weights: weight file of inception or dinov2; default a download.
        identity_model: a timm model that knows faces (or DINO), for the metric identity; implies it.
        identity_weights: its weight file; default a download.
        depth_truth: folder or zip of real heads with depth maps, for the metric depth; implies it.
        count: real pictures at most, and generated ones per repeat.
        repeats: how often, each with other latents and cameras.
        batch_size: pictures made at once.
        psi: truncation; 1 is what papers report.
        size: of the pictures whose making is timed; default the largest training size.
        rounds: of the timing.
        steps: also time so many training steps of each, with fresh weights, in the stage its run is in (a .yaml: its
            last one); a multiple of 16 is fair.
        seeds: heads to show.
        best: of run folders, the checkpoint with the best score instead of the newest.
        out: folder to write to.
    """

    generators: Annotated[tuple[Path, ...], tyro.conf.Positional]
    data: str | None = None
    mask_folder: str | None = None
    metrics: tuple[Metric, ...] = ("fid", "swd", "consistency", "similarity")
    features: Literal["random", "inception", "dinov2"] = "random"
    weights: Path | None = None
    identity_model: str | None = None
    identity_weights: Path | None = None
    depth_truth: Path | None = None
    count: int = 2048
    repeats: int = 1
    batch_size: int = 32
    psi: float = 1.0
    size: int | None = None
    rounds: int = 15
    steps: int = 0
    seeds: str = "0-7"
    best: bool = False
    out: Path = Path("comparison")


def run(argv: list[str]) -> int:
    """Parse, measure, print a table, say what was written."""
    arguments = tyro.cli(CompareArguments, args=argv, prog="cgsgan compare")
    from cgsgan.cli.render_arguments import parse_seeds

    seeds = parse_seeds(arguments.seeds)
    if arguments.rounds < 1 or arguments.steps < 0:
        raise ValueError(f"expected --rounds >= 1 and --steps >= 0, got {arguments.rounds} and {arguments.steps}")
    if arguments.size is not None and not 8 <= arguments.size <= 8192:
        raise ValueError(f"--size: expected 8 to 8192 pixels, got {arguments.size}")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out}: is a file; expected a folder to write to")
    import torch
    from accelerate import Accelerator

    from cgsgan.comparison import compare, open_contestants
    from cgsgan.comparison.measurements import ComparisonConfig
    from cgsgan.comparison.page import save_comparison
    from cgsgan.data.depth_truth import open_depth_truth
    from cgsgan.data.progress import progress_bar
    from cgsgan.evaluation import EvaluationConfig
    from cgsgan.evaluation.settings import check_needs
    from cgsgan.metrics.extractors import open_extractor

    metrics = _metrics(arguments)
    check_needs(metrics, identity=arguments.identity_model is not None, truth=arguments.depth_truth is not None)
    truth = open_depth_truth(arguments.depth_truth) if arguments.depth_truth else None
    quality = EvaluationConfig(
        metrics=metrics, count=arguments.count, repeats=arguments.repeats, batch_size=arguments.batch_size,
        truncation_psi=arguments.psi,
    ) if metrics else None  # fmt: skip
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    device = accelerator.device
    contestants = open_contestants(arguments.generators, device=device, best=arguments.best)
    extractor = open_extractor(arguments.features, weights=arguments.weights, device=device)
    identity = None
    if arguments.identity_model is not None:
        identity = open_extractor(
            "dinov2", weights=arguments.identity_weights, model=arguments.identity_model, device=device
        )
    config = ComparisonConfig(
        data=_data(arguments, [entrant.generator.config for entrant in contestants]),
        quality=quality, size=arguments.size,
        rounds=arguments.rounds, training_steps=arguments.steps,
    )  # fmt: skip
    with progress_bar() as progress:
        found = compare(
            contestants, config, accelerator, extractor=extractor, identity=identity, truth=truth, progress=progress
        )
    files = save_comparison(arguments.out, contestants, found, seeds=seeds, psi=arguments.psi)
    _print(found)
    print(f"wrote {', '.join(str(path) for path in files.values())}")
    return 0


def _metrics(arguments: CompareArguments) -> tuple[Metric, ...]:
    """What was asked for, and what options imply."""
    more: list[Metric] = []
    if arguments.identity_model is not None and "identity" not in arguments.metrics:
        more.append("identity")
    if arguments.depth_truth is not None and "depth" not in arguments.metrics:
        more.append("depth")
    return (*arguments.metrics, *more)


def _data(arguments: CompareArguments, trained: Sequence[ExperimentConfig]) -> DataConfig:
    """The real pictures, without mirror images; a set of the user's choice without the first one's lists.

    With their cameras where there are any, also for those that were trained without: all are seen from the same sides.
    """
    from cgsgan.data.entries import has_cameras

    path = arguments.data or trained[0].data.path
    labels = any(config.training.poses.source == "labels" for config in trained) or has_cameras(path)
    data = replace(trained[0].data, x_flip=False, labels=labels)
    if arguments.data is None:
        return data
    return replace(data, path=arguments.data, mask_folder=arguments.mask_folder, index_list=None, max_size=None)


def _print(found: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    from cgsgan.comparison.page import format_value

    table = Table()
    for name in ("", *found.names):
        table.add_column(name, overflow="fold")
    for label, values in found.rows.items():
        table.add_row(label, *(format_value(value) for value in values))
    console = Console()
    console.print(table)
    for note in found.notes:
        console.print(f"- {note}", markup=False)
