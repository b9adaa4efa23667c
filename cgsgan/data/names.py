"""A million names in a few numbers each: one block of bytes, and a sorted array of hashes to find them by."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from jaxtyping import Int64, Integer, UInt8

_BLOCK = 65536
_Kind = TypeVar("_Kind", bound="Names")


class Names(Sequence[str]):
    """An immutable list of strings without a Python object for each.

    Args:
        names: in order, repeats allowed.
    """

    def __init__(self, names: Iterable[str]) -> None:
        blob, ends = bytearray(), array("q", [0])
        for name in names:
            # Names on disk need not be text: Python hands over what it cannot decode as lone surrogates.
            blob += name.encode("utf-8", "surrogatepass")
            ends.append(len(blob))
        self._blob = bytes(blob)
        self._ends = np.frombuffer(ends, dtype=np.int64)
        self._prepare()

    def _prepare(self) -> None:
        """For subclasses: called whenever the names have been set."""

    @classmethod
    def from_arrays(cls: type[_Kind], blob: UInt8[np.ndarray, " byte"], ends: Int64[np.ndarray, " end"]) -> _Kind:
        """The inverse of :meth:`arrays`."""
        names = cls(())
        names._blob, names._ends = blob.tobytes(), ends
        names._prepare()
        return names

    @classmethod
    def joined(cls: type[_Kind], parts: Sequence[Names]) -> _Kind:
        """The names of all parts, one after the other."""
        begins = np.cumsum([0, *(len(part._blob) for part in parts)])
        ends = [part._ends[1:] + begin for part, begin in zip(parts, begins.tolist())]
        blob = np.frombuffer(b"".join(part._blob for part in parts), dtype=np.uint8)
        return cls.from_arrays(blob, np.concatenate([np.zeros(1, dtype=np.int64), *ends]))

    def arrays(self) -> tuple[UInt8[np.ndarray, " byte"], Int64[np.ndarray, " end"]]:
        """The bytes of all names, and 0 followed by where each name ends in them."""
        return np.frombuffer(self._blob, dtype=np.uint8), self._ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        position = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        begin, end = self._ends[position : position + 2].tolist()
        return self._blob[begin:end].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), 4096):
            yield from self[first : first + 4096]

    def take(self, rows: Integer[np.ndarray, " row"]) -> list[str]:
        """The names at ``rows``."""
        begins, ends = self._ends[rows].tolist(), self._ends[rows + 1].tolist()
        blob = self._blob
        return [blob[begin:end].decode("utf-8", "surrogatepass") for begin, end in zip(begins, ends)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(name == other for other in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return self._blob == other._blob and np.array_equal(self._ends, other._ends)
        return isinstance(other, list) and len(other) == len(self) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # type: ignore[assignment]


class NameIndex(Names):
    """Names that are found fast; of equal names the last counts."""

    def repeated(self) -> str | None:
        """A name that is there more than once, or None."""
        for position in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]).tolist():
            one, other = self.take(self._rows[position : position + 2])
            if one == other:
                return one
        return None

    def find(self, name: str) -> int:
        """The position of ``name``, or -1."""
        position = int(np.searchsorted(self._hashes, hash(name), side="right")) - 1
        while position >= 0 and self._hashes[position] == hash(name):
            row = int(self._rows[position])
            if self[row] == name:
                return row
            position -= 1
        return -1

    def find_all(self, names: Sequence[str]) -> Int64[np.ndarray, " name"]:
        """The position of each of ``names``, or -1."""
        found = np.full(len(names), -1, dtype=np.int64)
        if not len(self):
            return found
        for first in range(0, len(names), _BLOCK):
            block = names[first : first + _BLOCK]
            hashes = np.fromiter((hash(name) for name in block), dtype=np.int64, count=len(block))
            last = np.maximum(np.searchsorted(self._hashes, hashes, side="right") - 1, 0)
            rows = np.where(self._hashes[last] == hashes, self._rows[last], -1)
            found[first : first + len(block)] = rows
            candidates = self.take(np.maximum(rows, 0).astype(np.int64))
            for position, (name, row, candidate) in enumerate(zip(block, rows.tolist(), candidates)):
                # Equal hashes of different names are possible, if unheard of: then search with care.
                if row >= 0 and name != candidate:
                    found[first + position] = self.find(name)
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) >= 0

    def _prepare(self) -> None:
        # Python salts the hashes of strings anew in every process, so they are never stored.
        hashes = np.fromiter((hash(name) for name in self), dtype=np.int64, count=len(self))
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._rows = order.astype(np.int32)

    def __getstate__(self) -> dict[str, Any]:
        return {"_blob": self._blob, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()
