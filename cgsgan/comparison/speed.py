"""How fast generators are, measured in turns: a machine that slows down slows all of them down."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from cgsgan.cameras import Cameras, turntable
from cgsgan.comparison.contestants import Contestant
from cgsgan.data.dataset import DataConfig
from cgsgan.experiment import build_trainer
from cgsgan.gallery import generate_scenes, latents_from_seeds, render_views
from cgsgan.training.run_folder import RunFolder
from cgsgan.types import Scenes

MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one generator, one picture at a time.

    Attributes:
        latent_fps: pictures per second, each from a new latent.
        cached_fps: pictures per second of one scene that is kept.
        scene_megabytes: of a kept scene.
        peak_megabytes: of device memory while making a picture from a latent, networks included; None on a CPU.
    """

    latent_fps: float
    cached_fps: float
    scene_megabytes: float
    peak_megabytes: float | None


@torch.no_grad()
def measure_speeds(contestants: Sequence[Contestant], *, size: int, rounds: int) -> list[Speed]:
    """Medians of ``rounds`` turns, after one that does not count.

    Args:
        contestants: on one device.
        size: of the pictures, pixels, the same for all.
        rounds: >= 1.
    """
    device = next(contestants[0].generator.parameters()).device
    cameras = turntable(rounds + 1)
    kept = [_scenes(entrant, 0) for entrant in contestants]
    taken: dict[str, list[list[float]]] = {"latent": [], "cached": []}
    peaks: list[float | None] = [None] * len(contestants)
    for turn in range(rounds + 1):
        camera = cameras.map(lambda t, turn=turn: t[turn : turn + 1])
        times: dict[str, list[float]] = {"latent": [], "cached": []}
        for index, entrant in enumerate(contestants):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            latent = partial(_draw_latent, entrant, turn, camera, size)
            times["latent"].append(_time(latent, device))
            if device.type == "cuda":
                peaks[index] = torch.cuda.max_memory_allocated(device) / MEGABYTE
            times["cached"].append(_time(partial(_draw, entrant, kept[index], camera, size), device))
        if turn > 0:
            for name, measured in times.items():
                taken[name].append(measured)
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in taken.items()}
    return [
        Speed(
            latent_fps=1 / medians["latent"][index],
            cached_fps=1 / medians["cached"][index],
            scene_megabytes=sum(t.numel() * t.element_size() for t in kept[index].tensors()) / MEGABYTE,
            peak_megabytes=peaks[index],
        )
        for index in range(len(contestants))
    ]


def measure_training(
    contestants: Sequence[Contestant], data: DataConfig, accelerator: Accelerator, *, steps: int
) -> list[float]:
    """Images per second of whole training steps with fresh weights, in turns, after two steps that do not count.

    Schedules stand where the contestant's run did, or at the end of the config's where that is not known (of a .yaml,
    of imported weights): what grows, or has stages, is timed there, not at its quick start.

    A mean, not a median: penalties come every few steps only. ``steps`` that are a multiple of their intervals (16 as
    published) hold the right share of them.

    Args:
        contestants: their configs.
        data: real pictures; each takes them at its own size.
        accelerator: device and precision.
        steps: counted ones.
    """
    trainers, moments = [], []
    with tempfile.TemporaryDirectory() as folder:
        for entrant in contestants:
            config = entrant.generator.config
            own = replace(data, resolution=config.resolution, labels=config.data.labels)
            training = replace(config.training, start_from=None, evaluate_kimg=0.0, trackers=())
            trainer = build_trainer(replace(config, data=own, training=training), RunFolder(Path(folder)), accelerator)
            trainers.append(trainer)
            moments.append(entrant.generator.images_seen or int(training.kimg * 1000))
        spent = [0.0] * len(trainers)
        for step in range(steps + 2):
            for index, trainer in enumerate(trainers):
                trainer.images_seen = moments[index]
                seconds = _time(trainer.train_step, accelerator.device)
                spent[index] += seconds if step >= 2 else 0.0
    return [steps * trainer.config.batch_size / seconds for trainer, seconds in zip(trainers, spent, strict=True)]


def _scenes(entrant: Contestant, seed: int) -> Scenes:
    generator = entrant.generator
    z = latents_from_seeds([seed], generator.z_dim).to(next(generator.parameters()).device)
    return generate_scenes(generator, z)


def _draw_latent(entrant: Contestant, seed: int, camera: Cameras, size: int) -> None:
    _draw(entrant, _scenes(entrant, seed), camera, size)


def _draw(entrant: Contestant, scenes: Scenes, camera: Cameras, size: int) -> None:
    render_views(entrant.generator.renderer, scenes, camera, size=size)


def _time(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
