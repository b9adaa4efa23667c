"""Damaged pictures: refused, or replaced by the next good one, the same way whenever they are met."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cgsgan.data import BatchStream, DataConfig, DatasetError, HeadDataset, open_dataset

WriteSet = Callable[..., Path]
Files = tuple[dict[str, bytes], dict[str, Any]]


@pytest.fixture
def damaged_set(write_any_set: WriteSet, files: Files) -> Path:
    """Six pictures, of which 0, 3 and 4 are damaged: empty, cut short, and not a picture."""
    contents = copy.copy(files[0])
    contents["00000/img0000.png"] = b""
    contents["00000/img0003.png"] = contents["00000/img0003.png"][:150]
    contents["00000/img0004.png"] = b"no picture" * 20
    return write_any_set(contents, files[1])


def opened(path: Path, **settings: Any) -> HeadDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_dataset(DataConfig(path=str(path), resolution=8, **settings))


REPLACEMENTS = [1, 1, 2, 5, 5, 5]


@pytest.mark.filterwarnings("ignore:.*damaged picture")
@pytest.mark.parametrize("preload", [True, False])
def test_the_next_good_picture_comes_with_its_own_camera(damaged_set: Path, preload: bool) -> None:
    for _ in ("decoded", "from the cache"):
        dataset = opened(damaged_set, preload=preload, on_damaged="skip")
        assert len(dataset) == 12
        batch = dataset.read(range(12))
        assert dataset.damaged == 3
        good = dataset.read([*REPLACEMENTS, *(6 + i for i in REPLACEMENTS)])
        assert torch.equal(batch.premultiplied, good.premultiplied)
        assert torch.equal(batch.camera_labels, good.camera_labels)
        expected = dataset.labels[[*REPLACEMENTS, *(6 + i for i in REPLACEMENTS)]]
        assert torch.equal(batch.camera_labels, expected)


@pytest.mark.filterwarnings("ignore:.*damaged picture")
def test_a_long_stream_goes_on_and_does_not_depend_on_what_was_met_before(damaged_set: Path) -> None:
    whole = BatchStream(opened(damaged_set, preload=False, on_damaged="skip"), batch_size=4, seed=3, workers=2)
    batches = [whole.next() for _ in range(9)]
    whole.close()
    resumed = BatchStream(opened(damaged_set, preload=False, on_damaged="skip"), batch_size=4, seed=3)
    resumed.load_state_dict({"epoch": 2, "offset": 0, "seed": 3, "dataset_size": 12})
    for batch in batches[6:]:
        again = resumed.next()
        assert torch.equal(again.premultiplied, batch.premultiplied)
        assert torch.equal(again.camera_labels, batch.camera_labels)


@pytest.mark.parametrize("preload", [True, False])
def test_refused_by_default(damaged_set: Path, preload: bool) -> None:
    with pytest.raises(DatasetError, match=r"img000[034]\.png"):
        opened(damaged_set, preload=preload).read(range(6))
    opened(damaged_set, preload=True, on_damaged="skip")
    with pytest.raises(DatasetError, match=r"img000[034]\.png"):  # a cache that marks them is not taken for a good one
        opened(damaged_set, preload=preload).read(range(6))


def test_they_are_counted_in_warnings(damaged_set: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = open_dataset(DataConfig(path=str(damaged_set), resolution=8, preload=False, on_damaged="skip"))
        dataset.read(range(6))
        dataset.read(range(6))
    counts = [int(str(w.message).split()[0]) for w in caught]
    assert counts == [1, 2]
    assert dataset.damaged == 3


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.filterwarnings("ignore:.*damaged picture")
def test_nothing_but_damaged_pictures_is_an_error(write_any_set: WriteSet, files: Files, preload: bool) -> None:
    path = write_any_set(dict.fromkeys(files[0], b"x"), files[1])
    with pytest.raises(DatasetError, match="all of its pictures are damaged"):
        opened(path, preload=preload, on_damaged="skip")
