"""The error of every data-set problem that a user can mend."""

from __future__ import annotations


class DatasetError(ValueError):
    """A data set (or one entry of it) cannot be used; the message is one line and names the entry.

    Attributes:
        kind: the same fault without the names, by which many of them can be counted.
    """

    def __init__(self, message: str, kind: str = "data set cannot be read") -> None:
        super().__init__(message)
        self.kind = kind
