"""What the trainer asks of the data."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class RealBatch(Protocol):
    """A batch of real images."""

    @property
    def premultiplied(self) -> Float[Tensor, "batch 4 height width"]:
        """RGB times alpha, and alpha, in [0, 1]."""
        ...

    @property
    def camera_labels(self) -> Float[Tensor, "batch 25"]:
        """Their cameras."""
        ...


@runtime_checkable
class RealStream(Protocol):
    """An endless, resumable stream of this process's share of the real batches."""

    def next(self) -> RealBatch:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Position, JSON-able."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        ...
