from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cgsgan.data.archive import ZipSource
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.data.decoding import premultiply_and_reduce
from cgsgan.data.errors import DatasetError
from cgsgan.data.labels import flip_labels

Files = tuple[dict[str, bytes], dict[str, Any]]
WriteSet = Callable[..., Path]
Encode = Callable[..., bytes]


def config(path: Path, **changes: Any) -> DataConfig:
    return DataConfig(**{"path": str(path), "resolution": 8, **changes})


def pixels_of(content: bytes) -> np.ndarray:
    import io

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")).astype(np.float64)


def error_of(settings: DataConfig) -> str:
    with pytest.raises(DatasetError) as caught:
        open_dataset(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_pictures_and_labels(write_any_set: WriteSet, files: Files) -> None:
    contents, labels = files
    dataset = open_dataset(config(write_any_set(contents, labels), x_flip=False))
    assert len(dataset) == 6
    batch = dataset.read([4, 1, 4])
    for position, index in enumerate((4, 1, 4)):
        name, label = labels["labels"][index]
        straight = pixels_of(contents[name]) / 255
        expected = np.concatenate([straight[..., :3] * straight[..., 3:], straight[..., 3:]], -1)
        got = batch.premultiplied[position].permute(1, 2, 0).numpy()
        # Half a step of 8 bits; worst observed 0.4999 of a step.
        assert np.abs(got - expected).max() <= 0.5 / 255 + 1e-6
        np.testing.assert_array_equal(batch.camera_labels[position].numpy(), np.float32(label))


def test_flips_follow_the_straight_pictures(write_any_set: WriteSet, files: Files) -> None:
    dataset = open_dataset(config(write_any_set(*files)))
    assert len(dataset) == 12
    straight, flipped = dataset.read([2, 5]), dataset.read([8, 11])
    assert torch.equal(flipped.premultiplied, straight.premultiplied.flip(-1))
    assert torch.equal(flipped.camera_labels, flip_labels(straight.camera_labels))
    assert torch.equal(dataset.labels[[8, 11]], flipped.camera_labels)


def test_preloaded_and_streamed_pictures_are_equal(write_any_set: WriteSet, files: Files) -> None:
    path = write_any_set(*files)
    loaded = open_dataset(config(path, resolution=4, preload=True))
    streamed = open_dataset(config(path, resolution=4, preload=False))
    assert loaded.preloaded
    assert not streamed.preloaded
    indices = [0, 11, 5, 6, 3]
    assert torch.equal(loaded.read(indices).premultiplied, streamed.read(indices).premultiplied)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_reads_every_file_type(write_set: WriteSet, encode_image: Encode, files: Files, kind: str) -> None:
    _, labels = files
    picture = np.full((8, 8, 3), (200, 120, 40), np.uint8)
    suffix = {"PNG": "png", "WEBP": "webp", "JPEG": "jpg"}[kind]
    path = write_set({f"a.{suffix}": encode_image(picture, kind)}, {f"a.{suffix}": labels["labels"][0][1]})
    got = open_dataset(config(path)).read([0]).premultiplied[0, :, 4, 4] * 255
    # JPEG may be off by a few steps; the others are lossless.
    assert (got - torch.tensor([200.0, 120.0, 40.0, 255.0])).abs().max() <= (3 if kind == "JPEG" else 0.01)


def test_labels_name_pictures_by_stem(write_set: WriteSet, encode_image: Encode, files: Files) -> None:
    _, labels = files
    picture = encode_image(np.full((8, 8, 3), 90, np.uint8), "WEBP")
    path = write_set({"512/00007.webp": picture}, {"labels": [["00007.png", labels["labels"][0][1]]]})
    assert open_dataset(config(path, x_flip=False)).names == ["512/00007.webp"]


def test_zipped_folder_is_read(tmp_path: Path, files: Files) -> None:
    contents, labels = files
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"heads/{name}", content)
        archive.writestr("heads/dataset.json", json.dumps(labels))
        archive.writestr("__MACOSX/heads/._dataset.json", b"x")
    assert len(open_dataset(config(tmp_path / "a.zip"))) == 12


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_masks_multiply_alpha(
    write_set: WriteSet, encode_image: Encode, files: Files, tmp_path: Path, place: str
) -> None:
    _, labels = files
    picture = encode_image(np.full((8, 8, 3), 200, np.uint8))
    mask = np.zeros((4, 4), np.uint8)
    mask[:, 2:] = 255
    contents = {"a.png": picture}
    folder = "mask"
    if place == "inside":
        contents["mask/a.png"] = encode_image(mask)
    else:
        folder = str(tmp_path / "masks")
        Path(folder).mkdir()
        (Path(folder) / "a.png").write_bytes(encode_image(mask))
    path = write_set(contents, {"labels": [["a.png", labels["labels"][0][1]]]})
    got = open_dataset(config(path, mask_folder=folder, x_flip=False)).read([0]).premultiplied[0] * 255
    resized = np.asarray(Image.fromarray(mask).resize((8, 8), Image.Resampling.BILINEAR)).astype(np.float32)
    assert 0 < resized[0, 3] < 255  # linear, not nearest
    np.testing.assert_allclose(got[3].numpy(), resized, atol=0.01)
    np.testing.assert_allclose(got[0].numpy(), 200 / 255 * resized, atol=0.51)


@given(size=st.integers(1, 24), resolution=st.integers(1, 24), seed=st.integers(0, 9), background=st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_reduced_picture_composites_exactly(size: int, resolution: int, seed: int, background: float) -> None:
    resolution = min(size, resolution)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 4), dtype=np.uint8)
    reduced = premultiply_and_reduce(Image.fromarray(pixels), resolution) / 255.0
    got = reduced[..., :3] + (1 - reduced[..., 3:]) * background
    straight = pixels / 255.0
    full = straight[..., :3] * straight[..., 3:] + (1 - straight[..., 3:]) * background
    # The exact box average, by repeating pixels to a common multiple of both sizes.
    fine = full.repeat(resolution, 0).repeat(resolution, 1)
    expected = fine.reshape(resolution, size, resolution, size, 3).mean((1, 3))
    # Colour and alpha are rounded to 8 bits once each: at most half a step from both. Worst observed 0.97 steps / 255.
    assert np.abs(got - expected).max() <= (0.5 + 0.5 * background) / 255 + 1e-5


def test_colours_are_premultiplied_as_exactly_as_8_bits_can() -> None:
    """Every pair of colour and alpha: the nearest whole number; in whole numbers, as c * a / 255 is never at a half."""
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    pixels = np.stack([colour, 255 - colour, colour, alpha], axis=-1).astype(np.uint8)
    got = premultiply_and_reduce(Image.fromarray(pixels), 256)
    expected = (2 * pixels[..., :3].astype(np.int64) * alpha[..., None] + 255) // 510
    assert np.array_equal(got[..., :3], expected)
    assert np.array_equal(got[..., 3], alpha)


@pytest.mark.parametrize(("size", "resolution"), [(12, 6), (12, 4), (12, 1), (64, 16)])
def test_boxes_are_summed_in_the_order_that_caches_hold(size: int, resolution: int) -> None:
    """Decoded sets are kept between versions: single precision, rows first, must give the same bits for ever."""
    rng = np.random.default_rng(size)
    pixels = rng.integers(0, 256, (size, size, 4), dtype=np.uint8)
    full = pixels.astype(np.float32)
    full[..., :3] *= full[..., 3:] * np.float32(1 / 255)
    factor = size // resolution
    rows = np.zeros((resolution, size, 4), np.float32)
    for offset in range(factor):
        rows += full[offset::factor]
    total = np.zeros((resolution, resolution, 4), np.float32)
    for offset in range(factor):
        total += rows[:, offset::factor]
    expected = (total * np.float32(1 / factor**2) + np.float32(0.5)).astype(np.uint8)
    assert np.array_equal(premultiply_and_reduce(Image.fromarray(pixels), resolution), expected)


def test_index_list_repeats_and_max_size(write_any_set: WriteSet, files: Files, tmp_path: Path) -> None:
    contents, labels = files
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([3, 3, labels["labels"][1][0], 0]))
    path = write_any_set(contents, labels)
    dataset = open_dataset(config(path, index_list=str(listed), x_flip=False))
    names = [labels["labels"][i][0] for i in (3, 3, 1, 0)]
    assert dataset.names == names
    everything = open_dataset(config(path, x_flip=False))
    assert torch.equal(dataset.read([0, 1, 2, 3]).premultiplied, everything.read([3, 3, 1, 0]).premultiplied)
    assert torch.equal(dataset.labels, everything.labels[[3, 3, 1, 0]])
    short = open_dataset(config(path, index_list=str(listed), max_size=3, x_flip=False))
    assert short.names == names[:3]
    listed.write_text("[0, 6]")
    assert error_of(config(path, index_list=str(listed))) == (f"{listed}: item 1, 6, is not in {path} (6 images)")


def test_second_opening_uses_the_cache(
    write_set: WriteSet, files: Files, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, labels = files
    path = write_set(contents, labels)
    first = open_dataset(config(path)).read(range(12))
    assert len(list(cache_folder.rglob("*.npy"))) == 1
    decoded: list[int] = []
    again = open_dataset(config(path), progress=lambda task, done, total: decoded.append(done))
    assert decoded == []
    assert torch.equal(again.read(range(12)).premultiplied, first.premultiplied)
    write_set(dict(reversed(list(contents.items()))) | {"extra.txt": b"changed"}, labels)
    target = path / "00000/img0000.png"
    if path.is_dir():
        target.write_bytes(contents["00000/img0001.png"])
    open_dataset(config(path), progress=lambda task, done, total: decoded.append(done))
    assert decoded[-1:] == [6]


def test_damaged_cache_is_made_anew(write_any_set: WriteSet, files: Files, cache_folder: Path) -> None:
    path = write_any_set(*files)
    first = open_dataset(config(path)).read(range(12)).premultiplied
    (cached,) = cache_folder.rglob("*.npy")
    del_bytes = cached.read_bytes()[:50]
    cached.unlink()
    cached.write_bytes(del_bytes)
    assert torch.equal(open_dataset(config(path)).read(range(12)).premultiplied, first)


def test_unwritable_cache_warns_once_and_goes_on(
    write_set: WriteSet, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("CGSGAN_CACHE", str(blocked))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = open_dataset(config(write_set(*files)))
    assert len(dataset) == 12
    messages = [str(w.message) for w in caught]
    assert len(messages) == 1
    assert "CGSGAN_CACHE" in messages[0]


def test_source_survives_pickling_to_a_worker(tmp_path: Path, files: Files) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("dataset.json", json.dumps(files[1]))
    source = pickle.loads(pickle.dumps(ZipSource(tmp_path / "a.zip")))
    assert json.loads(source.read("dataset.json")) == files[1]


def test_sample_labels_are_rows_and_seeded(write_any_set: WriteSet, files: Files) -> None:
    dataset = open_dataset(config(write_any_set(*files)))
    drawn = dataset.sample_labels(40, torch.Generator().manual_seed(3))
    assert torch.equal(drawn, dataset.sample_labels(40, torch.Generator().manual_seed(3)))
    rows = {tuple(row) for row in dataset.labels.tolist()}
    assert {tuple(row) for row in drawn.tolist()} <= rows
    assert len({tuple(row) for row in drawn.tolist()}) > 6  # flips are drawn too


class TestBadInputs:
    """Each gives one line that names the entry."""

    def test_no_label_file(self, write_set: WriteSet, files: Files) -> None:
        path = write_set(files[0], None)
        assert error_of(config(path)) == (
            f"{path}: there is no dataset.json in it; expected EG3D's format: pictures, and a dataset.json with the "
            "camera of each (training without cameras: data.labels: false and training.poses.source: prior)"
        )

    def test_label_of_24_numbers(self, write_set: WriteSet, files: Files) -> None:
        contents, labels = files
        labels["labels"][2][1].pop()
        path = write_set(contents, labels)
        assert error_of(config(path)) == (f"{path}: label of '00000/img0002.png': expected 25 numbers, got 24 numbers")

    def test_missing_image(self, write_set: WriteSet, files: Files) -> None:
        contents, labels = files
        del contents["00000/img0001.png"], contents["00000/img0004.png"]
        path = write_set(contents, labels)
        assert error_of(config(path)) == (
            f"{path}: image '00000/img0001.png' (and 1 more) is named in dataset.json but is missing"
        )

    @pytest.mark.parametrize("preload", [True, False])
    def test_truncated_png(self, write_set: WriteSet, files: Files, preload: bool) -> None:
        contents, labels = files
        contents["00000/img0003.png"] = contents["00000/img0003.png"][:150]
        path = write_set(contents, labels)
        with pytest.raises(DatasetError, match=r"image '00000/img0003.png' cannot be decoded") as caught:
            open_dataset(config(path, preload=preload)).read([0, 3])
        assert str(caught.value).startswith(f"{path}: ")

    def test_mixed_sizes(self, write_set: WriteSet, files: Files, encode_image: Encode) -> None:
        contents, labels = files
        contents["00000/img0005.png"] = encode_image(np.zeros((16, 16, 3), np.uint8))
        path = write_set(contents, labels)
        assert error_of(config(path)) == (
            f"{path}: image '00000/img0005.png' is 16 px, but '00000/img0000.png' is 8 px; all pictures of a set must "
            "have one size"
        )

    def test_non_square(self, write_set: WriteSet, files: Files, encode_image: Encode) -> None:
        contents, labels = files
        contents["00000/img0000.png"] = encode_image(np.zeros((8, 12, 3), np.uint8))
        path = write_set(contents, labels)
        assert error_of(config(path)) == (f"{path}: image '00000/img0000.png' is 12x8; expected a square picture")

    def test_sixteen_bit(self, write_set: WriteSet, files: Files, encode_image: Encode) -> None:
        contents, labels = files
        contents["00000/img0000.png"] = encode_image(np.zeros((8, 8), np.uint16))
        path = write_set(contents, labels)
        assert error_of(config(path)) == (
            f"{path}: image '00000/img0000.png' has mode I;16; expected 8-bit grey, RGB or RGBA"
        )

    @pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "C:/a.png", "x\\a.png", "x/../../a.png"])
    def test_names_that_leave_the_folder(self, tmp_path: Path, files: Files, name: str) -> None:
        label = files[1]["labels"][0][1]
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, b"")
            archive.writestr("dataset.json", json.dumps({"labels": [[name, label]]}))
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "dataset.json").write_text(json.dumps({"labels": [[name, label]]}))
        for path in (tmp_path / "a.zip", tmp_path / "b"):
            assert error_of(config(path)) == (
                f"{path}: entry {name!r} points outside the data set; refused (expected a relative name with forward "
                "slashes, without '..')"
            )

    def test_empty(self, write_set: WriteSet) -> None:
        path = write_set({}, {"labels": []})
        assert error_of(config(path)) == f"{path}: dataset.json names no images: the data set is empty"

    def test_resolution_above_the_pictures(self, write_set: WriteSet, files: Files) -> None:
        path = write_set(*files)
        assert error_of(config(path, resolution=16)) == (
            f"{path}: the pictures are 8 px, smaller than the resolution asked for, 16; set resolution to 8 or less"
        )

    def test_unknown_picture_type(self, write_set: WriteSet, files: Files) -> None:
        path = write_set({"a.gif": b"GIF89a"}, {"a.gif": files[1]["labels"][0][1]})
        assert error_of(config(path)) == f"{path}: 'a.gif' has an unknown file type; expected PNG, JPEG or WebP"

    def test_png_that_is_not_one(self, write_set: WriteSet, files: Files) -> None:
        contents, labels = files
        contents["00000/img0000.png"] = b"GIF89a" + b"\0" * 60
        path = write_set(contents, labels)
        assert error_of(config(path)) == f"{path}: image '00000/img0000.png' is not a PNG, JPEG or WebP file"

    def test_mask_missing(self, write_set: WriteSet, files: Files, encode_image: Encode) -> None:
        contents, labels = files
        for i in range(5):
            contents[f"mask/img{i:04d}.png"] = encode_image(np.full((8, 8), 255, np.uint8))
        path = write_set(contents, labels)
        assert error_of(config(path, mask_folder="mask")) == (
            f"{path}: there is no mask for '00000/img0005.png' in 'mask'; expected a grey PNG with the stem of the "
            "picture"
        )
        assert error_of(config(path, mask_folder="nowhere")) == (
            f"{path}: mask folder 'nowhere' is neither in the data set nor on disk"
        )

    def test_not_a_data_set(self, tmp_path: Path) -> None:
        assert error_of(config(tmp_path / "none.zip")) == (
            f"{tmp_path / 'none.zip'}: no such data set (expected a folder, a .zip file, or .tar shards)"
        )
        (tmp_path / "a.rar").write_bytes(b"x")
        assert error_of(config(tmp_path / "a.rar")) == (
            f"{tmp_path / 'a.rar'}: unknown file type '.rar' (expected a folder, a .zip file, or .tar shards)"
        )
        (tmp_path / "b.zip").write_bytes(b"x")
        assert error_of(config(tmp_path / "b.zip")) == (
            f"{tmp_path / 'b.zip'}: not a readable zip archive (File is not a zip file)"
        )

    def test_bad_settings(self) -> None:
        for make in (
            lambda: DataConfig(resolution=0),
            lambda: DataConfig(max_size=0),
            lambda: DataConfig(workers=-1),
        ):
            with pytest.raises(DatasetError, match=r"^data\.\w+: expected"):
                make()
