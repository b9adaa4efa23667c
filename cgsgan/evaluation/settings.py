"""What to measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from cgsgan.metrics.figures import MetricName

ALL_METRICS: tuple[MetricName, ...] = get_args(MetricName)
SELF_SUFFICIENT = tuple(name for name in ALL_METRICS if name not in ("identity", "depth", "normals"))
"""What can be measured without a network that knows faces and without heads of known depth."""
NEEDS_LABELS = ("pose", "yaw")
"""What compares cameras of pictures."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What to measure.

    Attributes:
        metrics: names of figures, see :data:`ALL_METRICS`.
        count: real pictures (at most as many as there are), and generated ones per repeat.
        repeats: how often it is measured, each with latents and cameras of its own.
        seed: of the first repeat; the next has the next one.
        batch_size: pictures made at once per process; changes memory and speed.
        truncation_psi: 1 is what papers report.
    """

    metrics: tuple[str, ...] = SELF_SUFFICIENT
    count: int = 50_000
    repeats: int = 3
    seed: int = 0
    batch_size: int = 64
    truncation_psi: float = 1.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in ALL_METRICS]
        if unknown or not self.metrics:
            raise ValueError(
                f"--metrics: expected some of {', '.join(ALL_METRICS)}; got {', '.join(unknown) or 'none'}"
            )
        for name, smallest in (("count", 8), ("repeats", 1), ("batch_size", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"--{name}: expected at least {smallest}, got {getattr(self, name)}")
        if not math.isfinite(self.truncation_psi):
            raise ValueError(f"--psi: expected a finite number, got {self.truncation_psi}")


def check_needs(metrics: tuple[str, ...], *, identity: bool, truth: bool) -> None:
    """Refuse metrics that lack what they need.

    Args:
        metrics: what is to be measured.
        identity: whether there is a network that knows faces.
        truth: whether there are heads of known depth.

    Raises:
        ValueError: names the metric and the options that give it what it needs.
    """
    if "identity" in metrics and not identity:
        raise ValueError("--metrics identity needs a network that knows faces: --identity-model and --identity-weights")
    for name in ("depth", "normals"):
        if name in metrics and not truth:
            raise ValueError(f"--metrics {name} needs heads of known depth: --depth-truth")


def check_unlabelled(metrics: tuple[str, ...], *, prior: bool) -> None:
    """Refuse what a set without cameras cannot tell.

    Args:
        metrics: what is to be measured.
        prior: whether there is a distribution of cameras to look from.

    Raises:
        ValueError: names the metric, or what is missing, and the way out.
    """
    wanting = [name for name in metrics if name in NEEDS_LABELS]
    if wanting:
        raise ValueError(
            f"--metrics {' '.join(wanting)} compare cameras, which the data set does not have; leave them out, or give "
            "one with a dataset.json"
        )
    if not prior:
        raise ValueError(
            "the data set has no cameras, and the generator was trained with labels, not with a prior; expected a set "
            "with a dataset.json"
        )
