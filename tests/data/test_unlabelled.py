"""Sets without cameras: what opens, what comes of it, and what says that it needs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cgsgan.cli import main
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.data.entries import has_cameras
from cgsgan.data.errors import DatasetError
from tests.data.conftest import WriteSet, encode

Files = tuple[dict[str, bytes], dict]


def config(path: Path, **values: object) -> DataConfig:
    return DataConfig(**({"path": str(path), "resolution": 8, "labels": False} | values))  # type: ignore[arg-type]


def test_pictures_without_a_label_file_are_those_with_one(write_any_set: WriteSet, files: Files, tmp_path: Path):
    path = write_any_set(*files)
    labelled = open_dataset(config(path, labels=True))
    blind = open_dataset(config(path))
    assert blind.names == labelled.names
    assert len(blind) == len(labelled) == 12  # mirror images, too
    everything = range(12)
    seen = blind.read(everything)
    assert torch.equal(seen.premultiplied, labelled.read(everything).premultiplied)
    assert bool(seen.camera_labels.isnan().all())
    assert seen.camera_labels.shape == (12, 25)
    assert labelled.labelled
    assert not blind.labelled


def test_no_label_file_is_needed_or_read(write_set: WriteSet, files: Files):
    extra = {**files[0], "00000/.hidden.png": b"", "readme.txt": b"", "b/last.png": next(iter(files[0].values()))}
    assert open_dataset(config(write_set(extra, None))).names == [*files[0], "b/last.png"]
    assert not has_cameras(str(write_set(files[0], None)))
    path = write_set({**files[0], "dataset.json": b"no json at all"}, None)
    assert len(open_dataset(config(path, x_flip=False))) == 6 + (path / "b").is_dir()
    assert has_cameras(str(path))


def test_masks_lists_and_sizes_work(write_set: WriteSet, files: Files, tmp_path: Path):
    rng = np.random.default_rng(1)
    masks = {f"mask/img{i:04d}.png": encode(rng.integers(0, 256, (8, 8), dtype=np.uint8)) for i in range(6)}
    path = write_set({**files[0], **masks}, None)
    dataset = open_dataset(config(path, mask_folder="mask", x_flip=False))
    assert len(dataset) == 6
    assert not torch.equal(
        dataset.read([2]).premultiplied, open_dataset(config(path, max_size=6)).read([2]).premultiplied
    )
    (tmp_path / "list.json").write_text(json.dumps([4, "00000/img0001.png", 4]))
    listed = open_dataset(config(path, mask_folder="mask", index_list=str(tmp_path / "list.json"), x_flip=False))
    assert listed.names == ["00000/img0004.png", "00000/img0001.png", "00000/img0004.png"]
    assert torch.equal(listed.read([0]).premultiplied, dataset.read([4]).premultiplied)


def test_what_needs_cameras_says_so(
    write_set: WriteSet, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_set(files[0], None)
    dataset = open_dataset(config(path))
    for use in (lambda: dataset.labels, lambda: dataset.sample_labels(3)):
        with pytest.raises(DatasetError, match=r"was opened without cameras \(data.labels: false\), which this needs"):
            use()
    sheet = str(tmp_path / "sheet.png")
    for command, *options in (["check"], ["stats", "--out", sheet], ["preview", "--out", sheet]):
        assert main(["data", command, str(path), *options]) != 0
        told = capsys.readouterr()
        assert "there is no dataset.json" in told.out + told.err
        assert "Traceback" not in told.err


def test_an_empty_set_is_refused(write_set: WriteSet):
    with pytest.raises(DatasetError, match="there is no picture in it; expected PNG, JPEG or WebP files"):
        open_dataset(config(write_set({"readme.txt": b"x"}, None)))
