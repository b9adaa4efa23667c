from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgsgan.data import DataConfig, DatasetError, open_dataset
from cgsgan.data.check import check_dataset
from cgsgan.data.packing import PackConfig, pack_dataset

WriteSet = Callable[..., Path]
Encode = Callable[..., bytes]
Files = tuple[dict[str, bytes], dict[str, Any]]


def read_all(path: Path, resolution: int):
    dataset = open_dataset(DataConfig(path=str(path), resolution=resolution, x_flip=False, preload=True))
    return dataset.read(range(len(dataset))), dataset.names


def test_packing_keeps_bytes_names_and_labels(write_set: WriteSet, files: Files, tmp_path: Path) -> None:
    path = write_set(*files)
    assert pack_dataset(path, tmp_path / "out.zip", PackConfig()) == 6
    (before, names), (after, packed_names) = read_all(path, 8), read_all(tmp_path / "out.zip", 8)
    assert names == packed_names
    assert before.premultiplied.equal(after.premultiplied)
    assert before.camera_labels.equal(after.camera_labels)
    assert not check_dataset(tmp_path / "out.zip").problems


@pytest.mark.parametrize("webp", [False, True])
@pytest.mark.parametrize("kind", ["box", "lanczos"])
def test_reducing_keeps_alpha_and_bleeds_no_hidden_colour(
    tmp_path: Path, files: Files, encode_image: Encode, webp: bool, kind: Any
) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, 5:] = (200, 40, 10, 255)
    pixels[:, :5] = (0, 255, 0, 0)  # a hidden green that must not show up in the edge
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode_image(pixels))
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"a.png": files[1]["labels"][0][1]}))
    pack_dataset(folder, tmp_path / "o.zip", PackConfig(labels=labels, resolution=8, filter=kind, webp=webp))
    batch, names = read_all(tmp_path / "o.zip", 8)
    assert names == ["a.webp" if webp else "a.png"]
    red, green, _, alpha = batch.premultiplied[0]
    assert alpha[0, 0] <= (0 if kind == "box" else 0.03)  # Lanczos rings: 5/255
    assert alpha[0, 7] >= 0.97
    assert 0.4 < alpha[0, 2] < 0.6
    # 40 / 200 of the red, to the rounding of two 8-bit conversions (observed 0.004); bleeding gives 0.3 and more.
    assert ((green - red * 0.2).abs() < 0.012).all()


def test_refusals(write_set: WriteSet, files: Files, tmp_path: Path, encode_image: Encode) -> None:
    path, out = write_set(*files), tmp_path / "out.zip"
    out.write_bytes(b"precious")
    with pytest.raises(DatasetError, match="--overwrite"):
        pack_dataset(path, out, PackConfig())
    with pytest.raises(DatasetError, match="smaller than --resolution 16"):
        pack_dataset(path, out, PackConfig(resolution=16), overwrite=True)
    assert out.read_bytes() == b"precious"  # nothing half-written in its place
    assert {p.name for p in tmp_path.iterdir()} <= {"out.zip", "set", "set.zip", "cache"}
    with pytest.raises(DatasetError, match=r"\.zip"):
        pack_dataset(path, tmp_path / "out.tar", PackConfig())
    pack_dataset(path, out, PackConfig(), overwrite=True)
    assert out.read_bytes() != b"precious"


def test_mixed_sizes_need_a_resolution(write_set: WriteSet, files: Files, tmp_path: Path, encode_image: Encode) -> None:
    contents = {**files[0], "00000/img0005.png": encode_image(np.zeros((16, 16, 3), np.uint8))}
    path = write_set(contents, files[1])
    with pytest.raises(DatasetError, match=r"is 8 px, .* is 16 px; .* --resolution"):
        pack_dataset(path, tmp_path / "o.zip", PackConfig())
    assert not (tmp_path / "o.zip").exists()
    pack_dataset(path, tmp_path / "o.zip", PackConfig(resolution=4))
    assert not check_dataset(tmp_path / "o.zip").problems
