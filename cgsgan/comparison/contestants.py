"""What is compared: trained generators, or configs with fresh weights."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cgsgan.config import ConfigError, load_config
from cgsgan.generators import TrainedGenerator, build_generator, load_generator
from cgsgan.models.discriminator import Discriminator
from cgsgan.training.log import read_log

LOG_FILE = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A generator and what is known of its training.

    Attributes:
        name: short, no other has it.
        source: where it comes from.
        generator: ready to use.
        logged_rate: median of the images per second that its log tells, on whatever machine that was.
        logged_minutes: from the first to the last row of its log, pauses included.
    """

    name: str
    source: str
    generator: TrainedGenerator
    logged_rate: float | None = None
    logged_minutes: float | None = None

    @property
    def kind(self) -> str:
        """Of its scenes: gaussians, triplanes..."""
        return self.generator.config.generator.kind

    def parameters(self) -> dict[str, int]:
        """Parameters of the generator and of the discriminator that belongs to it."""
        with torch.device("meta"):
            discriminator = Discriminator(self.generator.config.discriminator)
        networks = {"generator": self.generator.network, "discriminator": discriminator}
        return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def open_contestants(
    paths: Sequence[Path], *, device: torch.device | str = "cpu", best: bool = False
) -> list[Contestant]:
    """Generators of run folders, checkpoints or files; or, of a ``.yaml``, with fresh weights.

    Args:
        paths: two or more.
        device: where to put them.
        best: of run folders, the checkpoint with the best score instead of the newest.

    Raises:
        ValueError: for fewer than two, or what cannot be opened.
    """
    if len(paths) < 2:
        raise ConfigError(f"compare: expected two or more checkpoints, run folders or configs, got {len(paths)}")
    names = _names(paths)
    return [_open(path, name, device, best) for path, name in zip(paths, names, strict=True)]


def _open(path: Path, name: str, device: torch.device | str, best: bool) -> Contestant:
    if path.suffix in (".yaml", ".yml"):
        config = load_config(path)
        torch.manual_seed(config.training.seed)
        generator = TrainedGenerator(build_generator(config.generator), config)
        ready = generator.eval().requires_grad_(False).to(device)
        return Contestant(name=name, source=f"{path}, fresh weights", generator=ready)
    generator = load_generator(path, device=device, best=best)
    rows = _rows_until(read_log(_log_of(path)), generator.images_seen / 1000)
    times = [float(row["time"]) for row in rows if "time" in row]
    return Contestant(
        name=name,
        source=str(path),
        generator=generator,
        logged_rate=statistics.median(float(row["images_per_second"]) for row in rows) if rows else None,
        logged_minutes=(times[-1] - times[0]) / 60 if len(times) > 1 else None,
    )


def _rows_until(rows: Sequence[dict[str, Any]], kimg: float) -> list[dict[str, Any]]:
    """What a log says of the time before a checkpoint."""
    measured = [row for row in rows if "event" not in row and "images_per_second" in row]
    return [row for row in measured if float(row.get("kimg", 0.0)) <= kimg + 1e-3]


def _log_of(path: Path) -> Path:
    """The log of the run that a checkpoint belongs to, as far as its place tells."""
    for folder in (path, *path.parents[:3]):
        if (folder / LOG_FILE).is_file():
            return folder / LOG_FILE
    return path / LOG_FILE


def _names(paths: Sequence[Path]) -> list[str]:
    """The run of each path, or as much as it takes to tell them apart."""
    parts = [_telling_parts(path) for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({index + 1})" for index, path in enumerate(paths)]


def _telling_parts(path: Path) -> tuple[str, ...]:
    path = path.resolve()
    if path.suffix == ".safetensors":
        path = path.parent if path.stem == "generator" else path.with_suffix("")
    if path.suffix in (".yaml", ".yml"):
        path = path.with_suffix("")
    checkpoint = path.name if path.name.startswith("kimg-") else None
    if checkpoint is None:
        return path.parts
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return (*folder.parts[:-1], f"{folder.name} {checkpoint}")
