"""The error of every data-set problem that a user can mend."""

from __future__ import annotations

from pathlib import Path

Location = Path | str
"""Where a data set lies: a path, or what names its shards."""


class DatasetError(ValueError):
    """A data set (or one entry of it) cannot be used; the message is one line and names the entry.

    Attributes:
        kind: the same fault without the names, by which many of them can be counted.
    """

    def __init__(self, message: str, kind: str = "data set cannot be read") -> None:
        super().__init__(message)
        self.kind = kind


class UnreachableError(DatasetError):
    """The place where a data set lies does not answer; that is no damage of a picture, and never skipped as one."""
