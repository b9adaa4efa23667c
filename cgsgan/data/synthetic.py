"""Procedural heads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cgsgan.data.progress import Progress, ignore_progress


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Attributes as written."""

    count: int = 6000
    resolution: int = 64
    seed: int = 0


def synthetic_name(config: SyntheticConfig) -> str:
    """File name of the archive."""
    return f"heads-{config.count}x{config.resolution}-seed{config.seed}.zip"


def make_synthetic(config: SyntheticConfig, out_path: Path, progress: Progress = ignore_progress) -> Path:
    """Write the archive."""
    raise NotImplementedError
