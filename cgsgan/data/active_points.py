"""Work on some of the points of each person: gathered into one padded batch, and written back."""

from __future__ import annotations

import torch
from torch import Tensor


class ActivePoints:
    """The chosen points of each person, moved together and padded to the person with most of them.

    Args:
        mask: ``[person, point]``, which points are chosen.
    """

    def __init__(self, mask: Tensor) -> None:
        self._rows, self._columns = mask.nonzero(as_tuple=True)
        self._slots = (mask.cumsum(1) - 1)[self._rows, self._columns]
        width = max(int(mask.sum(1).max()), 1)
        # Padding repeats point 0; its results are never written back.
        self._index = torch.zeros(len(mask), width, dtype=torch.long)
        self._index[self._rows, self._slots] = self._columns

    @property
    def empty(self) -> bool:
        """Whether no point is chosen."""
        return len(self._rows) == 0

    def take(self, values: Tensor) -> Tensor:
        """The chosen of ``values`` ``[person, point]`` or ``[person, channel, point]``."""
        if values.ndim == 3:
            return torch.gather(values, 2, self._index[:, None].expand(-1, values.shape[1], -1))
        return torch.gather(values, 1, self._index)

    def put(self, target: Tensor, values: Tensor) -> None:
        """Write ``values``, as :meth:`take` gave them, to their places in ``target``."""
        if values.ndim == 3:
            for channel in range(values.shape[1]):
                self.put(target[:, channel], values[:, channel])
        else:
            target[self._rows, self._columns] = values[self._rows, self._slots]
