"""``cgsgan evaluate CHECKPOINT [--data PATH] [--features random] [--metrics fid kid ...] [--out FILE.json]``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from cgsgan.config import ExperimentConfig
    from cgsgan.data.dataset import DataConfig

Metric = Literal[
    "fid", "kid", "pr", "swd", "fid3d", "yaw", "consistency", "pose", "similarity", "identity", "depth",
    "normals",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Measure a generator against real pictures, and its views against each other.

    Attributes:
        checkpoint: a run folder, a checkpoint folder or a generator.safetensors.
        data: folder or zip with a dataset.json, or shards; default what the generator was trained on. Without cameras
            it will do for a generator that was trained without.
        mask_folder: folder of grey PNG masks of --data, inside the set or on disk.
        features: what pictures are described by. random needs no weights, and its FID is no paper's FID.
        weights: weight file of inception or dinov2; default a download.
        model: the timm model of dinov2.
        metrics: what to measure; fid3d is FID with the latent mapped as if seen from the front, yaw is FID per bin;
            pose compares with the camera what a small network, taught by the real set, sees; similarity is that of two
            views of one scene against two scenes in --features, identity the same in --identity-model.
        identity_model: a timm model that knows faces (or DINO), for the metric identity; implies it.
        identity_weights: its weight file; default a download.
        depth_truth: folder or zip of real heads with depth maps, for the metric depth; implies it. normals
            compares normal maps with those of these heads, in --features.
        count: real pictures at most, and generated ones per repeat.
        repeats: how often, each with other latents and cameras; the table shows mean and standard deviation.
        seed: of the first repeat.
        batch_size: pictures made at once per process.
        psi: truncation; 1 is what papers report.
        out: write the figures to this .json, too.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    data: str | None = None
    mask_folder: str | None = None
    features: Literal["random", "inception", "dinov2"] = "random"
    weights: Path | None = None
    model: str = "vit_base_patch14_dinov2.lvd142m"
    metrics: tuple[Metric, ...] = (
        "fid", "kid", "pr", "swd", "fid3d", "yaw", "consistency", "pose", "similarity",
    )  # fmt: skip
    identity_model: str | None = None
    identity_weights: Path | None = None
    depth_truth: Path | None = None
    count: int = 50_000
    repeats: int = 3
    seed: int = 0
    batch_size: int = 64
    psi: float = 1.0
    out: Path | None = None


def run(argv: list[str]) -> int:
    """Parse, measure, print a table and write a file; under torchrun every process makes its share."""
    arguments = tyro.cli(EvaluateArguments, args=argv, prog="cgsgan evaluate")
    if arguments.out is not None and arguments.out.suffix != ".json":
        raise ValueError(f"--out: expected a .json file, got {arguments.out}")
    if arguments.identity_weights is not None and arguments.identity_model is None:
        raise ValueError("--identity-weights: name the timm model that they belong to with --identity-model")
    import torch
    from accelerate import Accelerator

    from cgsgan.data.dataset import open_dataset
    from cgsgan.data.depth_truth import open_depth_truth
    from cgsgan.data.progress import ignore_progress, progress_bar
    from cgsgan.evaluation import EvaluationConfig, Evaluator, GeneratorScenes
    from cgsgan.evaluation.settings import check_needs
    from cgsgan.generators import load_generator
    from cgsgan.metrics.extractors import open_extractor
    from cgsgan.training.poses import PosePrior

    config = EvaluationConfig(
        metrics=_metrics(arguments), count=arguments.count, repeats=arguments.repeats, seed=arguments.seed,
        batch_size=arguments.batch_size, truncation_psi=arguments.psi,
    )  # fmt: skip
    check_needs(config.metrics, identity=arguments.identity_model is not None, truth=arguments.depth_truth is not None)
    truth = open_depth_truth(arguments.depth_truth) if arguments.depth_truth else None
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    generator = load_generator(arguments.checkpoint, device=accelerator.device)
    with progress_bar() as bar:
        progress = bar if accelerator.is_main_process else ignore_progress
        with accelerator.main_process_first():  # the others find its downloads and decoded pictures
            extractor = open_extractor(
                arguments.features, weights=arguments.weights, model=arguments.model, device=accelerator.device
            )
            identity = (
                open_extractor(
                    "dinov2", weights=arguments.identity_weights, model=arguments.identity_model,
                    device=accelerator.device,
                )
                if arguments.identity_model
                else None
            )  # fmt: skip
            dataset = open_dataset(_data_config(arguments, generator.config), progress=progress)
        source = GeneratorScenes(generator, config.truncation_psi)
        prior = PosePrior.of(generator.config.training.poses)
        found = Evaluator(source, dataset, extractor, config, accelerator, progress, identity, truth, prior).measure()
    if accelerator.is_main_process:
        found = {"checkpoint": str(arguments.checkpoint), "images_seen": generator.images_seen, **found}
        _report(found, arguments.out)
    accelerator.end_training()
    return 0


def _metrics(arguments: EvaluateArguments) -> tuple[Metric, ...]:
    """What was asked for, and what options imply."""
    more: list[Metric] = []
    if arguments.identity_model is not None and "identity" not in arguments.metrics:
        more.append("identity")
    if arguments.depth_truth is not None and "depth" not in arguments.metrics:
        more.append("depth")
    return (*arguments.metrics, *more)


def _data_config(arguments: EvaluateArguments, trained: ExperimentConfig) -> DataConfig:
    """The real pictures, without mirror images; a set of the user's choice without the training set's lists."""
    data = replace(trained.data, x_flip=False)
    from cgsgan.data.entries import has_cameras
    from cgsgan.data.shard_files import names_shards

    if arguments.data is None:
        if data.path is not None and not names_shards(data.path) and not Path(data.path).expanduser().exists():
            raise ValueError(
                f"{arguments.checkpoint}: the pictures it was trained on are not here ({data.path}); name others with "
                "--data"
            )
        return data

    labels = trained.training.poses.source == "labels" or has_cameras(arguments.data)
    own = {"path": arguments.data, "mask_folder": arguments.mask_folder, "labels": labels}
    return replace(data, **own, index_list=None, max_size=None)


def _report(found: dict[str, Any], out: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    title = (
        f"{found['checkpoint']} ({found['images_seen'] / 1000:g} kimg): {found['repeats']} x "
        f"{found['fake_pictures_per_repeat']} pictures against {found['real_pictures']} of {found['data']}"
    )
    table = Table("figure", "mean", "+-", title=title, caption=f"features: {found['features'] or 'none'}")
    for name, figure in found["figures"].items():
        table.add_row(name, *("-" if figure[key] is None else f"{figure[key]:.5g}" for key in ("mean", "std")))
    Console().print(table)
    if out is not None:
        from cgsgan.export.atomic import atomic_path

        with atomic_path(out) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")
        print(f"wrote {out}")
