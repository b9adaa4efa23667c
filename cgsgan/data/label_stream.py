"""Reads a large ``dataset.json`` piece by piece.

A million labels are 400 MB of text, which the JSON parser would turn into gigabytes of Python numbers at once.
Anything unusual (another layout, a name with brackets, a faulty label) is left to
:func:`cgsgan.data.labels.parse_label_file`, which reads the file as a whole and knows what to say.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from cgsgan.cameras import LABEL_SIZE
from cgsgan.data.labels import first_fault
from cgsgan.data.names import Names

PIECE_BYTES = 1 << 20
_HEAD = re.compile(rb'\s*\{\s*"labels"\s*:\s*\[')
_ENTRY_END = re.compile(rb"\]\s*\]")
_COMMA = re.compile(rb"\s*,")
_STRING = re.compile(rb'"[^"]*"')
_WORD = re.compile(rb"[a-df-zA-DF-Z{]")  # true, false, null, NaN, Infinity; not the e of 1e-5
_TAIL = re.compile(rb"\s*\]\s*\}\s*")


class _UnusualError(Exception):
    """The file is not of the one layout that is read in pieces."""


def stream_labels(chunks: Iterable[bytes]) -> tuple[Names, Float32[np.ndarray, "image 25"]] | None:
    """Names and labels of ``{"labels": [[name, [25 numbers]], ...]}``.

    Args:
        chunks: the bytes of the file in order.

    Returns:
        None when the file has another layout or something in it is wrong.
    """
    numbers = array("f")

    def names() -> Iterator[str]:
        for piece in _pieces(chunks):
            part, labels = _parse(piece)
            numbers.frombytes(labels.astype(np.float32).tobytes())
            yield from part

    try:
        found = Names(names())
    except _UnusualError:
        return None
    return found, np.frombuffer(numbers, dtype=np.float32).reshape(-1, LABEL_SIZE)


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Runs of whole entries, about a megabyte each, without the commas between runs."""
    waiting, began, first = b"", False, True
    for chunk in chunks:
        for start in range(0, len(chunk), PIECE_BYTES):
            waiting += chunk[start : start + PIECE_BYTES]
            if not began:
                head = _HEAD.match(waiting)
                if head is None and len(waiting) < PIECE_BYTES:
                    continue
                if head is None:
                    raise _UnusualError
                waiting, began = waiting[head.end() :], True
            # From the left, so that in "]]]" the first two close the entry and the third the list.
            end = max((match.end() for match in _ENTRY_END.finditer(waiting)), default=0)
            if not end:
                if len(waiting) > 2 * PIECE_BYTES:
                    raise _UnusualError
                continue
            comma = None if first else _COMMA.match(waiting)
            if not first and comma is None:
                raise _UnusualError
            yield waiting[comma.end() if comma else 0 : end]
            waiting, first = waiting[end:], False
    if first or not _TAIL.fullmatch(waiting):
        raise _UnusualError


def _parse(piece: bytes) -> tuple[list[str], Float64[np.ndarray, "image 25"]]:
    """Names and labels of a run of entries, every one of them checked."""
    try:
        entries: list[Any] = json.loads(b"[" + piece + b"]")
        names = [name for name, _ in entries]
        labels = np.array([numbers for _, numbers in entries], dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise _UnusualError from None
    # With two quotes for each entry, only the names are strings; of what else JSON has, words have no place in numbers.
    plain = piece.count(b'"') == 2 * len(names) and all(isinstance(name, str) for name in names)
    words = _WORD.search(_STRING.sub(b"", piece)) is not None
    if not plain or words or labels.shape != (len(names), LABEL_SIZE) or first_fault(labels) is not None:
        raise _UnusualError
    return names, labels
