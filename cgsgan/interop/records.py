"""What a pickle's objects are read as: inert records, none of which has behaviour that a pickle could reach.

Records compare by identity, so that even a hostile nesting of them is hashed in no time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgsgan.interop.errors import WeightsError

MOST_DIMENSIONS = 8
LARGEST_SIZE = 2**48
"""Above this no shape is believed: products of hostile numbers would take their time before they are refused."""
NUMPY_KINDS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])


def is_shape(value: Any) -> bool:
    """Whether a value from a file is a short tuple of sizes."""
    return (
        type(value) is tuple
        and len(value) <= MOST_DIMENSIONS
        and all(type(n) is int and 0 <= n <= LARGEST_SIZE for n in value)
    )


@dataclass(eq=False, frozen=True)
class Name:
    """A class or function that a pickle names, like ``collections.OrderedDict``. It is never looked up."""

    full: str


@dataclass(eq=False)
class Stub:
    """An object of a class whose code is not here and is not run.

    Attributes:
        name: its class.
        args: what it was to be made from.
        state: its attributes.
        items: its entries, if the class was a kind of dict.
        elements: its entries, if the class was a kind of list.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class StorageRecord:
    """A run of numbers; in some formats their bytes come after everything else.

    Attributes:
        dtype: of one number.
        count: numbers.
        data: their bytes, little-endian.
    """

    dtype: torch.dtype
    count: int
    data: bytearray | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * self.dtype.itemsize

    def fill(self, data: bytes) -> None:
        """Take the bytes.

        Raises:
            WeightsError: when they are more or fewer than declared.
        """
        if len(data) != self.size:
            raise WeightsError(f"truncated or damaged: a tensor declares {self.size} bytes, {len(data)} are there")
        self.data = bytearray(data)  # writable, as torch wants its memory


@dataclass(eq=False, frozen=True)
class TensorRecord:
    """A strided view of a storage, in numbers of it; what a file says of it is checked here.

    Raises:
        WeightsError: when it reaches outside its storage or would be larger than it.
    """

    storage: StorageRecord
    offset: Any
    shape: Any
    stride: Any

    def __post_init__(self) -> None:
        if not is_shape(self.shape) or not is_shape(self.stride) or not is_shape((self.offset,)):
            raise WeightsError("damaged: the shape of a tensor is none")
        elements = math.prod(self.shape)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride)) if elements else 0
        outside = elements > self.storage.count or last >= max(self.storage.count, 1)
        if len(self.shape) != len(self.stride) or outside:
            raise WeightsError(
                f"damaged: a tensor of shape {list(self.shape)} in a storage of {self.storage.count} numbers"
            )

    @property
    def size(self) -> int:
        """Bytes of a copy of it."""
        return math.prod(self.shape) * self.storage.dtype.itemsize

    def build(self) -> Tensor:
        """A copy of the tensor, on the CPU."""
        if self.storage.data is None:
            raise WeightsError("truncated or damaged: the numbers of a tensor are not there")
        if self.storage.count == 0:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        numbers = torch.frombuffer(self.storage.data, dtype=torch.uint8)
        # A byte of a bool other than 0 and 1 would be undefined behaviour.
        numbers = numbers != 0 if self.storage.dtype == torch.bool else numbers.view(self.storage.dtype)
        return numbers.as_strided(self.shape, self.stride, self.offset).clone()


@dataclass(eq=False)
class DtypeRecord:
    """A numpy dtype of plain numbers."""

    kind: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        """Take the byte order from what numpy pickles."""
        order = state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise WeightsError("contains a numpy dtype that is not of plain numbers; refused")
        self.order = "<" if order in "|=" else order

    def array(self, data: Any, shape: Any, *, fortran: bool = False) -> np.ndarray:
        """An array of it from bytes."""
        dtype = np.dtype(self.order + self.kind)
        if type(data) is not bytes or not is_shape(shape) or math.prod(shape) * dtype.itemsize != len(data):
            raise WeightsError("damaged: a numpy array whose bytes do not fit its shape or are no plain numbers")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


@dataclass(eq=False)
class ArrayRecord:
    """A numpy array, filled after it was made."""

    value: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Take what numpy pickles: version, shape, dtype, whether it is in Fortran order, bytes."""
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, DtypeRecord):
            raise WeightsError("contains a numpy array that is not of plain numbers; refused")
        self.value = dtype.array(data, shape, fortran=bool(fortran))
