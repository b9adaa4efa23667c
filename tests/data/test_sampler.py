from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cgsgan.data.dataset import DataConfig, HeadDataset, RealBatch, open_dataset
from cgsgan.data.sampler import BatchStream

Opened = Callable[[bool], HeadDataset]


@pytest.fixture
def opened(
    write_any_set: Callable[..., Path], files: tuple[dict[str, bytes], dict[str, Any]]
) -> Callable[[bool], HeadDataset]:
    path = write_any_set(*files)
    return lambda preload: open_dataset(DataConfig(path=str(path), resolution=8, preload=preload))


def same(a: RealBatch, b: RealBatch) -> bool:
    return torch.equal(a.premultiplied, b.premultiplied) and torch.equal(a.camera_labels, b.camera_labels)


@pytest.mark.parametrize("preload", [True, False])
def test_interleaved_ranks_give_the_joined_batch(opened: Opened, preload: bool) -> None:
    dataset = opened(preload)
    one = BatchStream(dataset, 8, seed=1)
    workers = 0 if preload else 2
    three = [BatchStream(dataset, 8, 1, rank=rank, world_size=4, workers=workers) for rank in range(4)]
    for _ in range(7):
        whole, parts = one.next(), [stream.next() for stream in three]
        for rank, part in enumerate(parts):
            assert torch.equal(part.premultiplied, whole.premultiplied[rank::4])
            assert torch.equal(part.camera_labels, whole.camera_labels[rank::4])
    for stream in three:
        stream.close()


def test_every_epoch_holds_every_picture_once_and_differs(opened: Opened) -> None:
    dataset = opened(True)
    stream = BatchStream(dataset, 5, seed=2)  # does not divide 12: batches span epochs
    labels = torch.cat([stream.next().camera_labels for _ in range(12)])
    rows = [tuple(row) for row in labels.tolist()]
    epochs = [rows[start : start + 12] for start in range(0, 60, 12)]
    everything = sorted(tuple(row) for row in dataset.labels.tolist())
    for epoch in epochs:
        assert sorted(epoch) == everything
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


@pytest.mark.parametrize("workers", [0, 3])
def test_resume_in_the_middle_of_an_epoch(opened: Opened, workers: int) -> None:
    dataset = opened(workers == 0)
    first = BatchStream(dataset, 5, seed=3, workers=workers)
    for _ in range(4):
        first.next()
    state = first.state_dict()
    assert state == {"epoch": 1, "offset": 8, "seed": 3, "dataset_size": 12}
    expected = [first.next() for _ in range(4)]
    second = BatchStream(dataset, 5, seed=99, workers=workers)
    second.next()
    second.load_state_dict(state)
    assert all(same(batch, second.next()) for batch in expected)
    first.load_state_dict(state)
    assert same(first.next(), expected[0])
    first.close()
    second.close()


def test_seeds_differ_and_repeat(opened: Opened) -> None:
    dataset = opened(True)
    assert same(BatchStream(dataset, 12, 4).next(), BatchStream(dataset, 12, 4).next())
    assert not same(BatchStream(dataset, 12, 4).next(), BatchStream(dataset, 12, 5).next())


def test_batches_may_be_larger_than_the_set(opened: Opened) -> None:
    assert BatchStream(opened(True), 30, 0).next().premultiplied.shape == (30, 4, 8, 8)


def test_bad_arguments_and_other_data_are_refused(opened: Opened) -> None:
    dataset = opened(True)
    with pytest.raises(ValueError, match="multiple of the number of processes, got 6 for 4"):
        BatchStream(dataset, 6, 0, world_size=4)
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\), got 2"):
        BatchStream(dataset, 6, 0, rank=2, world_size=2)
    state = BatchStream(dataset, 6, 0).state_dict() | {"dataset_size": 14}
    with pytest.raises(ValueError, match="a data set of 14 pictures"):
        BatchStream(dataset, 6, 0).load_state_dict(state)
