"""What happens beside training; the experiment supplies it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure of the averaged generator; less is better.

    Attributes:
        name: its key in the log.
        metric: what was measured, exactly; scores of one metric are compared.
        value: the figure.
    """

    name: str
    metric: str
    value: float


@dataclass(kw_only=True)
class Milestones:
    """What happens beside training; the experiment supplies it.

    Attributes:
        sample: writes a contact sheet of the averaged generator for this many images seen; says where.
        config: the resolved config as plain data, for checkpoints.
        measure: figures of the averaged generator for the log, beside each contact sheet; None: there are none.
        score: measures the averaged generator, in all processes; None: nothing does.
    """

    sample: Callable[[nn.Module, int], str]
    config: dict[str, Any]
    measure: Callable[[nn.Module], dict[str, float]] | None = None
    score: Callable[[nn.Module], Score] | None = None
