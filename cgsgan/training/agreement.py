"""What the processes of a run must hold in common: sums, means, and when to stop."""

from __future__ import annotations

from signal import Signals

import torch
from accelerate import Accelerator
from torch import Tensor

from cgsgan.training.guards import FiniteGuard
from cgsgan.training.interruption import STOPPING
from cgsgan.training.judging import Stats


class Agreement:
    """Small reductions over all processes; each is free where there is one.

    Args:
        accelerator: the processes.
        finite_guard: looks at every step.
    """

    def __init__(self, accelerator: Accelerator, finite_guard: FiniteGuard) -> None:
        self.accelerator, self._finite_guard = accelerator, finite_guard

    def after_step(self, stats: Stats, received: Signals | None, late: bool) -> tuple[Signals | None, bool, list[str]]:
        """What all processes do after a step: one reduction, so that all leave the loop at the same one.

        Args:
            stats: the step's scalars.
            received: the signal that came to this process.
            late: whether this process finds that the run's time is over.

        Returns:
            The signal to end with, whether time is over, and what is not finite in any process.
        """
        names, broken = self._finite_guard.look(stats)
        own = [float(received == number) for number in STOPPING]
        total = self.total([*own, float(late), *broken.float().tolist()])
        signals = [number for number, count in zip(STOPPING, total[: len(STOPPING)]) if count > 0]
        found = [name for name, count in zip(names, total[len(STOPPING) + 1 :], strict=True) if count > 0]
        return (signals[0] if signals else None), total[len(STOPPING)] > 0, found

    def total(self, values: list[float]) -> list[float]:
        """Sums over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        reduced = self.accelerator.reduce(torch.tensor(values, device=self.accelerator.device), reduction="sum")
        assert isinstance(reduced, Tensor)
        return reduced.tolist()

    def average(self, means: dict[str, float]) -> dict[str, float]:
        """Means over all processes: all of them log, and stop, on the same numbers."""
        total = self.total(list(means.values()))
        return {name: value / self.accelerator.num_processes for name, value in zip(means, total, strict=True)}
