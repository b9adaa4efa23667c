"""The error of every data-set problem that a user can mend."""

from __future__ import annotations


class DatasetError(ValueError):
    """A data set (or one entry of it) cannot be used; the message is one line and names the entry."""
