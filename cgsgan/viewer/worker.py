"""One thread that does all the work. What is wanted replaces what was wanted before, so no queue ever grows."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable

from cgsgan.viewer.state import State

SHORTEST_ROUND = 1 / 15
"""Seconds from one picture to the next, at least; and at most half of the time is spent drawing."""


Show = Callable[[State], None]
"""Draws a state for the pages; called in the worker's thread."""


class StoppedError(Exception):
    """The worker ends; raised in the middle of a long task."""


class Worker:
    """Shows the newest state, and does one further task at a time.

    Args:
        show: draws a state.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._wanted: State | None = None
        self._task: Callable[[], None] | None = None
        self._busy = False
        self._stopped = False
        self._not_before = 0.0
        self._thread = threading.Thread(target=self._run, name="explorer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, also in the middle of a task."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    @property
    def idle(self) -> bool:
        """Whether all that was asked for is done."""
        with self._lock:
            return self._wanted is None and self._task is None and not self._busy

    def want(self, state: State) -> None:
        """Show this one next, instead of any other that waits."""
        with self._lock:
            self._wanted = state
        self._wake.set()

    def do(self, task: Callable[[], None]) -> bool:
        """A task of another kind, such as writing a file; False when one waits or runs already."""
        with self._lock:
            if self._task is not None:
                return False
            self._task = task
        self._wake.set()
        return True

    def catch_up(self) -> None:
        """For long tasks, between their parts: show what is wanted meanwhile.

        Raises:
            StoppedError: when the worker ends.
        """
        if self._stopped:
            raise StoppedError
        if time.monotonic() >= self._not_before:
            self._show_newest()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopped:
                return
            self._show_newest()
            task = self._task
            if task is not None:
                self._guard(task)
                with self._lock:
                    self._task = None
            time.sleep(max(0.0, self._not_before - time.monotonic()))

    def _show_newest(self) -> None:
        with self._lock:
            state, self._wanted = self._wanted, None
            self._busy = state is not None
        if state is None:
            return
        begun = time.monotonic()
        self._guard(lambda: self._show(state))
        ended = time.monotonic()
        self._not_before = max(begun + SHORTEST_ROUND, ended + (ended - begun))
        with self._lock:
            self._busy = False

    def _guard(self, work: Callable[[], None]) -> None:
        """One state that cannot be drawn must not end the explorer."""
        try:
            work()
        except StoppedError:
            pass
        except Exception:
            traceback.print_exc(file=sys.stderr)
