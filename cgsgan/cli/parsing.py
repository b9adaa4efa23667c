"""Command lines to dataclasses, with one line for values that have no meaning."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from typing import Any, TypeVar

import tyro

T = TypeVar("T")
WALL, FLOOR = "\u2502", "\u2500" * 8  # what a box is drawn with
HEADING = "Value error"
PATH = "Error parsing experiment."


def parse_arguments(cls: type[T], argv: list[str], **how: Any) -> T:
    """As :func:`tyro.cli`, but what the dataclasses themselves refuse is told as everything else that is refused is.

    Unknown options keep tyro's own message, with what is similar to them.

    Args:
        cls: a dataclass.
        argv: without the command's name.
        how: for :func:`tyro.cli`.

    Raises:
        ValueError: with what a dataclass said of a value.
        SystemExit: after help, and after tyro's own messages.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(cls, args=argv, **how)
    except SystemExit as stop:
        refusal = _unboxed(said.getvalue())
        if refusal:
            raise ValueError(refusal) from None
        if not stop.code:
            sys.stderr.write(said.getvalue())
            raise
    return tyro.cli(cls, args=argv, **how)  # says it again, in the terminal's width and colours


def _unboxed(message: str) -> str:
    """The text of tyro's box around a refused value, in one line; empty for any other message."""
    lines = [line.strip() for line in message.splitlines()]
    if not lines or HEADING not in lines[0]:
        return ""
    words: list[str] = []
    for line in lines[1:]:
        text = line.strip(WALL).strip()
        if FLOOR in text:
            break
        words += text.split()
    text = " ".join(words)
    prefix, _, rest = text.partition(": ")
    if not prefix.startswith(PATH):
        return text
    path = prefix.removeprefix(PATH)
    return rest if rest.startswith((path, path.rpartition(".")[2])) else f"{path}: {rest}"
