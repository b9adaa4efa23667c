"""Endless shuffled batches, the same for any number of processes, with an exact position to resume from."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Int64

from cgsgan.data.dataset import HeadDataset, RealBatch


class BatchStream:
    """An endless stream of real batches.

    The order is one fixed sequence of shuffled epochs; a global batch is the next ``batch_size`` of it (it
    may span two epochs, nothing is dropped), and process ``rank`` takes its elements ``rank::world_size``.
    So the joined batches of W processes hold what one process would get, element by element.

    Args:
        dataset: where to read.
        batch_size: of all processes together.
        seed: of the shuffling.
        rank: of this process.
        world_size: number of processes; must divide ``batch_size``.
        workers: batches decoded ahead, each in its own thread; without effect for a preloaded set.

    Raises:
        ValueError: when ``world_size`` does not divide ``batch_size``, or a number is out of range.
    """

    def __init__(
        self,
        dataset: HeadDataset,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        if batch_size < 1 or batch_size % world_size != 0:
            raise ValueError(
                "the global batch size must be a positive multiple of the number of processes, got "
                f"{batch_size} for {world_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
        if seed < 0:
            raise ValueError(f"the seed must be 0 or more, got {seed}")
        self._dataset = dataset
        self._batch_size = batch_size
        self._rank, self._world_size = rank, world_size
        self._seed = seed
        self._position = 0
        self._epoch_order: tuple[int, Int64[np.ndarray, " index"]] | None = None
        self._ahead = 0 if dataset.preloaded else workers
        self._pool: ThreadPoolExecutor | None = None
        self._futures: deque[Future[RealBatch]] = deque()

    @property
    def batch_size(self) -> int:
        """Of this process."""
        return self._batch_size // self._world_size

    def next(self) -> RealBatch:
        """The next batch of this process."""
        batch = self._next_decoded() if self._ahead else self._dataset.read(self._indices(self._position))
        self._position += self._batch_size
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The position (epoch, pictures taken of it by all processes together) and what it belongs to."""
        epoch, offset = divmod(self._position, len(self._dataset))
        return {"epoch": epoch, "offset": offset, "seed": self._seed, "dataset_size": len(self._dataset)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position; the batches that follow are those that followed there.

        Raises:
            ValueError: when the position belongs to a data set of another size.
        """
        if state["dataset_size"] != len(self._dataset):
            raise ValueError(
                f"the run was saved with a data set of {state['dataset_size']} pictures (flips included), "
                f"but {self._dataset.location} gives {len(self._dataset)}; resume with the same data"
            )
        self._drop_futures()
        self._seed = int(state["seed"])
        self._epoch_order = None
        self._position = int(state["epoch"]) * len(self._dataset) + int(state["offset"])

    def close(self) -> None:
        """Stop decoding ahead."""
        self._drop_futures()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _next_decoded(self) -> RealBatch:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._ahead, thread_name_prefix="cgsgan-data")
        while len(self._futures) <= self._ahead:
            start = self._position + len(self._futures) * self._batch_size
            self._futures.append(self._pool.submit(self._dataset.read, self._indices(start)))
        return self._futures.popleft().result()

    def _drop_futures(self) -> None:
        for future in self._futures:
            future.cancel()
        self._futures.clear()

    def _indices(self, start: int) -> Int64[np.ndarray, " batch"]:
        """The share of this process in the global batch that begins ``start`` pictures into the stream."""
        positions = np.arange(start + self._rank, start + self._batch_size, self._world_size)
        epochs, offsets = np.divmod(positions, len(self._dataset))
        indices = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            indices[chosen] = self._order(int(epoch))[offsets[chosen]]
        return indices

    def _order(self, epoch: int) -> Int64[np.ndarray, " index"]:
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._dataset))
            self._epoch_order = (epoch, order.astype(np.int64))
        return self._epoch_order[1]
