"""The memory of graphs, counted by autograd's own hooks: the same figure on every device."""

from __future__ import annotations

import torch


class LiveBytes:
    """Counts what autograd holds for backward passes, and the most it ever held."""

    def __init__(self) -> None:
        self.live = self.peak = 0

    def pack(self, tensor: torch.Tensor) -> object:
        return _Held(self, tensor)

    @staticmethod
    def unpack(held: _Held) -> torch.Tensor:
        return held.tensor


class _Held:
    def __init__(self, account: LiveBytes, tensor: torch.Tensor) -> None:
        self.account, self.tensor = account, tensor
        account.live += tensor.nbytes
        account.peak = max(account.peak, account.live)

    def __del__(self) -> None:
        self.account.live -= self.tensor.nbytes
