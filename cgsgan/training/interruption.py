"""SIGTERM and SIGINT end a run at the end of its step, with a checkpoint.

Exit codes: a run that was stopped ends with 128 + the signal's number (143 for SIGTERM, 130 for SIGINT), though
everything was saved. Schedulers read 0 as "this job is done" and do not start it again (a Kubernetes Job is then
complete, a supervisor set to restart on failure lets it rest); 143 is what they expect of a process that obeyed SIGTERM
and is read as unfinished. SLURM requeues preempted jobs whatever their code.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)
SAME_SECONDS = 1.0
"""Signals this close are one request: schedulers signal a launcher and its processes, and the launcher passes it on."""


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is noted and a later one ends the process at once.

    Outside the main thread, where Python takes no handlers, nothing is changed.

    Args:
        announce: say on stderr what was noted; for one process of several.
    """

    def __init__(self, *, announce: bool = True) -> None:
        self.signal: signal.Signals | None = None
        self._announce = announce
        self._noted_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self.signal is None:
            self.signal, self._noted_at = received, time.monotonic()
            self._say(f"{received.name}: finishing the step and saving; a second one ends the run at once")
        elif time.monotonic() - self._noted_at > SAME_SECONDS:
            self._say(f"{received.name} again: ending at once; the last complete checkpoint stays")
            os._exit(exit_code(received))

    def _say(self, text: str) -> None:
        if self._announce:
            os.write(2, f"\n{text}\n".encode())  # a handler may interrupt a print, and printing inside one would fail


def exit_code(received: signal.Signals) -> int:
    """What a process ends with that was stopped by a signal."""
    return 128 + int(received)
