"""Progress of the slow parts (decoding, making heads): a callback, and a terminal bar that is one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, total)."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A rich bar on standard error; one task per description, shown from its first call on.

    Where standard error is a file or a pipe, a plain line at every tenth stands for the bar.
    """
    if not sys.stderr.isatty():
        yield plain_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(file=sys.stderr)) as bars:

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done, total=total)

        yield report


def plain_lines() -> Progress:
    """A callback that prints a line to standard error whenever another tenth of a task is done."""
    tenths: dict[str, int] = {}

    def report(task: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > tenths.get(task, 0):
            tenths[task] = tenth
            print(f"{task}: {done}/{total}", file=sys.stderr, flush=True)

    return report


def ignore_progress(task: str, done: int, total: int) -> None:
    """The callback that reports to nobody."""
