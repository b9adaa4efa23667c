"""What a run says while it works: a progress bar, a line now and then, and log.jsonl."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor


class RunningMeans:
    """Means of scalars between two reports, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, stats: Mapping[str, Tensor]) -> None:
        """Add one step's scalars."""
        for name, value in stats.items():
            scalar = value.detach().float()
            self._sums[name] = self._sums[name] + scalar if name in self._sums else scalar
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call, and start anew."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


class Clock:
    """Images per second over the last seconds, and the minutes since training began here."""

    def __init__(self, images_seen: int) -> None:
        self._start = time.perf_counter()
        self._marks = [(self._start, images_seen)]

    def minutes(self) -> float:
        """Since this object was made."""
        return (time.perf_counter() - self._start) / 60

    def rate(self, images_seen: int) -> float:
        """Images per second of the last seconds, up to now."""
        now = time.perf_counter()
        self._marks.append((now, images_seen))
        # The last 20 seconds say what is going on now; a whole-run mean would hide a slowdown.
        while len(self._marks) > 2 and now - self._marks[1][0] > 20:
            self._marks.pop(0)
        elapsed = now - self._marks[0][0]
        return (images_seen - self._marks[0][1]) / max(elapsed, 1e-9)


class Tracker:
    """Console and log of the main process; silent in the others.

    Args:
        log: the JSON-lines file, appended to.
        total_kimg: length of the bar.
        max_minutes: the run stops after so many, if it has not come to its end; 0: it does not.
        active: False in processes other than the main one.
    """

    def __init__(self, log: Path, *, total_kimg: float, max_minutes: float = 0.0, active: bool) -> None:
        self.console = Console(quiet=not active, highlight=False)
        self._log = log if active else None
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[kimg]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            disable=not active,
        )
        self._task = self._progress.add_task("training", total=total_kimg, kimg="", rate="", left="")
        self._total, self._max_minutes = total_kimg, max_minutes
        self._start = time.perf_counter()

    def __enter__(self) -> Tracker:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, kimg: float, images_per_second: float) -> None:
        """Move the bar."""
        self._progress.update(
            self._task,
            completed=kimg,
            kimg=f"{kimg:.1f}/{self._total:g} kimg",
            rate=f"{images_per_second:.0f} img/s",
            left=self._left(kimg, images_per_second),
        )

    def report(self, kimg: float, images_per_second: float, means: Mapping[str, float]) -> None:
        """One line for people, one for programs."""
        gap, real, fake = (means.get(k, float("nan")) for k in ("logit_gap", "real_logits", "fake_logits"))
        self.console.print(
            f"{kimg:8.1f} kimg  {images_per_second:6.1f} img/s  {self._left(kimg, images_per_second)}  "
            f"D(real) {real:+.2f}  D(fake) {fake:+.2f}  gap {gap:.2f}  "
            f"|grad G| {means.get('generator_gradient_norm', float('nan')):.3g}",
            soft_wrap=True,
        )
        self.record({"kimg": round(kimg, 3), "images_per_second": round(images_per_second, 2), **means})

    def _left(self, kimg: float, images_per_second: float) -> str:
        """Until the end, or until ``max_minutes`` where that is sooner."""
        left = max(self._total - kimg, 0.0) * 1000 / max(images_per_second, 1e-9)
        granted = self._max_minutes * 60 - (time.perf_counter() - self._start)
        if self._max_minutes > 0 and granted < left:
            return f"stops in {_clock(max(granted, 0.0))}"
        return f"left {_clock(left)}"

    def record(self, entry: Mapping[str, float | str]) -> None:
        """Append one JSON object to the log."""
        if self._log is not None:
            line = json.dumps({"time": round(time.time(), 1), **entry}) + "\n"
            try:
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                raise OSError(
                    f"{self._log}: cannot be written ({error.strerror}); the last checkpoint is intact"
                ) from None

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, soft_wrap=True)


def check_trackers(names: Sequence[str]) -> None:
    """Say early that a tracker cannot be had; Accelerate would leave it out without a word.

    Raises:
        ValueError: names the package and how to get it.
    """
    for name in names:
        packages = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ValueError(f"training.trackers: {name} needs a package that is not installed; pip install {name}")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
