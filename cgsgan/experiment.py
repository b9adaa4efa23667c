"""The wiring: a config becomes networks, data, a trainer and a run. Start reading here.

A model makes a scene (``models``), a renderer makes images (``rendering``), a step makes gradients
(``training.steps``), a trainer makes a run (``training.trainer``); only this file knows them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from signal import Signals

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed
from torch import nn

from cgsgan.cameras import orbit
from cgsgan.config import (
    ConfigError,
    ExperimentConfig,
    config_to_dict,
    differing_fields,
    dump_config,
    flat_config,
    load_config,
)
from cgsgan.data.dataset import HeadDataset, open_dataset
from cgsgan.data.progress import progress_bar
from cgsgan.data.sampler import BatchStream
from cgsgan.evaluation import GeneratorScenes, SceneSource
from cgsgan.export.scene import ExportOptions
from cgsgan.film import save_turntable
from cgsgan.gallery import (
    LARGEST_TILE,
    contact_sheet,
    generate_scenes,
    latents_from_seeds,
    save_contact_sheet,
    save_scene,
)
from cgsgan.generators import TrainedGenerator, build_generator, build_renderer, load_generator
from cgsgan.growing import Origin, check_growable, read_origin, start_from
from cgsgan.models.discriminator import Discriminator
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.rendering.sampler_audit import audit_sampler
from cgsgan.scoring import Scorer
from cgsgan.training.checkpoint import find_generator, read_slow_weights, read_training_state
from cgsgan.training.compilation import compile_networks
from cgsgan.training.curves import save_curves
from cgsgan.training.generator_file import read_generator
from cgsgan.training.milestones import Milestones
from cgsgan.training.poses import PosePrior
from cgsgan.training.precision import set_tf32
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.steps import AdversarialSteps
from cgsgan.training.surface_steps import SurfaceSteps
from cgsgan.training.tracking import check_trackers
from cgsgan.training.trainer import Trainer
from cgsgan.types import Gaussians, SdfPlanes

SHEET_SEEDS = tuple(range(16))
"""The identities of every sample sheet: the same ones through a whole run."""
AUDITED_HEADS, AUDITED_YAWS = 4, (0.0, 0.6)
"""Heads of these seeds, and radians, at which few samples are compared with many."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run left behind.

    Attributes:
        run: its folder.
        files: name and path of everything made at the end.
        stopped_by: the signal that ended it before its time; nothing was made then but a checkpoint.
    """

    run: RunFolder
    files: dict[str, Path]
    stopped_by: Signals | None = None


def build_steps(
    config: ExperimentConfig, dataset: HeadDataset, accelerator: Accelerator, origin: Origin | None = None
) -> AdversarialSteps:
    """Both networks on their device, equal on all processes, and the objective; from ``origin`` if there is one."""
    set_seed(config.training.seed)
    generator = build_generator(config.generator)
    discriminator = Discriminator(config.discriminator)
    if config.training.poses.source == "labels":
        labels = dataset.labels
        discriminator.set_label_statistics(labels.mean(dim=0), labels.std(dim=0, correction=0))
    if origin is not None:
        accelerator.print(start_from(origin, config, generator, discriminator))
    generator, discriminator = generator.to(accelerator.device), discriminator.to(accelerator.device)
    if config.training.compile:
        compile_networks([generator, discriminator], accelerator.device)
    parts = {
        "generator": generator,
        "discriminator": discriminator,
        "renderer": build_renderer(config),
        "size": config.resolution,
        "loss": config.training.loss,
        "planes": config.training.planes,
        "growth": config.training.growth,
        "dual": config.discriminator.dual,
        "views_apart": config.training.views_apart,
        "autocast": lambda: accelerator.autocast(),  # noqa: PLW0108 (its optional argument is not ours)
    }
    if config.generator.kind == "sdf_planes":
        return SurfaceSteps(**parts, surface=config.training.surface)
    return AdversarialSteps(**parts)


def build_trainer(
    config: ExperimentConfig, run: RunFolder, accelerator: Accelerator, origin: Origin | None = None
) -> Trainer:
    """Everything a run needs, ready to train from its start."""
    set_tf32(config.training.tf32, accelerator.device)
    with accelerator.main_process_first(), progress_bar() as progress:
        dataset = open_dataset(config.data, progress=progress)
    stream = BatchStream(
        dataset,
        batch_size=config.training.batch_size,
        seed=config.training.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        workers=config.data.workers,
    )
    evaluated = config.training.evaluate_kimg > 0
    score = Scorer(config.training, dataset.without_flips(), accelerator, _scenes_of(config)) if evaluated else None
    return Trainer(
        steps=build_steps(config, dataset, accelerator, origin),
        stream=stream,
        labels=PosePrior.of(config.training.poses) or dataset,
        config=config.training,
        accelerator=accelerator,
        run=run,
        milestones=Milestones(
            sample=lambda ema, seen: _sample(config, run, ema, seen),
            config=config_to_dict(config),
            measure=_audit_of(config),
            score=score,
        ),
    )


def train(config: ExperimentConfig, run: RunFolder, *, resume: bool = False) -> RunResult:
    """Train, or go on training, and leave a grid, a turntable and, of Gaussians, a ``.ply``.

    Args:
        config: the experiment.
        run: where to write; must not exist (or be empty) unless resuming.
        resume: continue from the newest checkpoint in ``run``, or from the beginning when it has none yet.

    Raises:
        ValueError: for anything a user can fix: data, config, folders; nothing is written over.
    """
    # One process makes or decodes the data while the others wait; for a large set that takes longer than the default.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=4))
    check_trackers(config.training.trackers)
    accelerator = Accelerator(
        log_with=list(config.training.trackers) or None,  # type: ignore[arg-type]
        project_dir=str(run.path / "trackers"),
        mixed_precision=config.training.mixed_precision,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[patience],
    )
    if resume:
        if accelerator.is_main_process:
            run.clean()
        accelerator.wait_for_everyone()
        check_resumable(run, config)
    else:
        run.check_free()
    check_groups(config, accelerator.num_processes)
    origin = None
    if config.training.start_from is not None and not (resume and run.latest_checkpoint()):
        origin = read_origin(config.training.start_from)
        check_growable(origin, config)  # before data is decoded
    trainer = build_trainer(config, run, accelerator, origin)
    _start(trainer, config, resume=resume)
    if config.training.trackers:
        values = {k: v if isinstance(v, int | float | str) else str(v) for k, v in flat_config(config).items()}
        accelerator.init_trackers(config.name, config=values, init_kwargs={"wandb": {"dir": str(run.path)}})
    received = trainer.train()
    if trainer.images_seen < config.training.kimg * 1000:
        accelerator.print(_ended_early(trainer, received))
    files = _finish(config, run) if accelerator.is_main_process and received is None else {}
    accelerator.end_training()
    return RunResult(run=run, files=files, stopped_by=received)


def _ended_early(trainer: Trainer, received: Signals | None) -> str:
    """Why, and how to go on."""
    config, resume = trainer.config, f"python train.py --resume {trainer.run.path}"
    where = f"{trainer.images_seen / 1000:g} of {config.kimg:g} kimg, everything is saved"
    if received is not None:
        return f"stopped by {received.name} at {where}; go on with: {resume}"
    minutes = f"{config.max_minutes:g} minutes (training.max_minutes)"
    return f"stopped after {minutes} at {where}; go on to the end with: {resume} --training.max-minutes 0"


def _start(trainer: Trainer, config: ExperimentConfig, *, resume: bool) -> None:
    """Bring a trainer to its newest checkpoint and its folder to the same moment."""
    run, accelerator = trainer.run, trainer.accelerator
    checkpoint = run.latest_checkpoint() if resume else None
    if checkpoint is not None:
        weights = read_generator(find_generator(checkpoint)).weights
        trainer.restore(read_training_state(checkpoint), weights, read_slow_weights(checkpoint))
        accelerator.print(f"going on from {checkpoint.name}")
    elif resume:
        accelerator.print(f"{run.path}: ended before its first checkpoint; starting from its beginning")
    if accelerator.is_main_process:
        if resume:
            run.prepare_resume(dump_config(config), trainer.images_seen / 1000)
        else:
            run.create(dump_config(config))
    accelerator.wait_for_everyone()
    if resume and trainer.images_seen >= config.training.kimg * 1000:
        accelerator.print(f"{run.path}: already at {trainer.images_seen / 1000:g} kimg; raise --training.kimg to go on")


def check_groups(config: ExperimentConfig, processes: int) -> None:
    """Refuse batches that the discriminator's minibatch-std groups do not divide.

    Raises:
        ConfigError: names batch, processes and group.
    """
    group = config.discriminator.minibatch_std_group
    parts = config.training.accumulate
    local = config.training.batch_size / processes / parts
    if local % group and (processes * parts > 1 or local > group):
        accumulated = f" in {parts} parts (training.accumulate)" if parts > 1 else ""
        raise ConfigError(
            f"training.batch_size: {config.training.batch_size} over {processes} process(es){accumulated} does not "
            f"divide into groups of {group} (discriminator.minibatch_std_group)"
        )


RESUMABLE = ("name", "training.kimg", "training.max_minutes", "training.log_kimg", "training.sample_kimg",
             "training.checkpoint_kimg", "training.keep_checkpoints", "training.milestone_kimg", "training.guard",
             "training.trackers", "training.evaluate_kimg", "training.evaluate_count",
             "training.evaluate_features", "training.evaluate_weights", "training.accumulate",
             "training.compile", "data.path", "data.workers", "data.on_damaged", "data.preload", "data.cache",
             "data.remote_cache_gb", "rendering.backend")  # fmt: skip
"""What may differ when a run is resumed: its length, its bookkeeping, its guards and where the data lies."""


def check_resumable(run: RunFolder, config: ExperimentConfig) -> None:
    """Refuse to continue a run as a different experiment.

    Raises:
        ConfigError: names every differing field with both values.
    """
    different = [
        line
        for line in differing_fields(load_config(run.config), config)
        if not f"{line.split(':')[0]}.".startswith(tuple(f"{name}." for name in RESUMABLE))
    ]
    if different:
        raise ConfigError(f"{run.path}: cannot be resumed with another experiment; differing: {'; '.join(different)}")


def _scenes_of(config: ExperimentConfig) -> Callable[[nn.Module], SceneSource]:
    return lambda ema: GeneratorScenes(TrainedGenerator(ema, config))  # type: ignore[arg-type]


def _audit_of(config: ExperimentConfig) -> Callable[[nn.Module], dict[str, float]] | None:
    """Of generators that are drawn with few samples: whether these show what many would."""
    renderer, factor = build_renderer(config), config.training.surface.audit_factor
    if not isinstance(renderer, RobustRenderer) or factor == 0:
        return None

    def audit(ema: nn.Module) -> dict[str, float]:
        generator = TrainedGenerator(ema, config)  # type: ignore[arg-type]
        z = latents_from_seeds(SHEET_SEEDS[:AUDITED_HEADS], generator.z_dim).to(generator.device)
        scenes = generate_scenes(generator, z)
        assert isinstance(scenes, SdfPlanes)
        yaws = torch.tensor(AUDITED_YAWS, device=z.device)
        cameras = orbit(yaws, torch.zeros_like(yaws)).map(lambda t: t.expand(len(z), *t.shape))
        size = min(config.resolution, LARGEST_TILE)
        return audit_sampler(renderer, scenes, cameras, size=size, factor=factor)

    return audit


def _sample(config: ExperimentConfig, run: RunFolder, ema: nn.Module, images_seen: int) -> str:
    generator = TrainedGenerator(ema, config, images_seen)  # type: ignore[arg-type]
    path = run.samples / f"kimg-{images_seen / 1000:09.3f}.png"
    device = next(ema.parameters()).device
    z = latents_from_seeds(SHEET_SEEDS, generator.z_dim).to(device)
    save_contact_sheet(path, contact_sheet(generator, generator.renderer, z, size=min(config.resolution, LARGEST_TILE)))
    save_curves(run.log, run.curves)
    return f"contact sheet: {path}"


def _finish(config: ExperimentConfig, run: RunFolder) -> dict[str, Path]:
    generator = load_generator(run.path)
    size = min(config.resolution, LARGEST_TILE)
    files = {name: run.path / name for name in ("grid.png", "turntable.webp")}
    z = latents_from_seeds(SHEET_SEEDS, generator.z_dim)
    save_contact_sheet(files["grid.png"], contact_sheet(generator, generator.renderer, z, size=size))
    scenes = generate_scenes(generator, z[:8])
    # Splats show more at twice the size, for next to nothing; a field is asked at every pixel of every frame.
    large = max(size, 128) if isinstance(scenes, Gaussians) else size
    save_turntable(files["turntable.webp"], generator.renderer, scenes, size=large)
    if save_curves(run.log, run.curves):
        files["curves.png"] = run.curves
    if isinstance(scenes, Gaussians):
        files["head.ply"] = run.path / "head.ply"
        save_scene(files["head.ply"], scenes.scene(0), ExportOptions(extra_dilation=generator.dilation))
    return files


__all__ = ["RunResult", "build_steps", "build_trainer", "check_resumable", "train"]
