"""A large set: opening it costs little memory and time, and nothing of what small sets promise."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cgsgan.cameras import orbit
from cgsgan.data import DatasetError
from cgsgan.data.archive import ZipSource
from cgsgan.data.label_stream import stream_labels
from cgsgan.data.labels import check_labels, parse_label_file
from cgsgan.data.names import NameIndex, Names

OPEN = """
import resource, sys, time, torch
from cgsgan.data import DataConfig, open_dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = open_dataset(DataConfig(path=sys.argv[1], resolution=4, preload=False))
batch = dataset.read([0, len(dataset) - 1])
print(len(dataset), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, time.process_time())
"""


def write_large_set(path: Path, count: int, png: bytes) -> None:
    labels = orbit(torch.linspace(-0.5, 0.5, count), torch.zeros(count)).to_labels().tolist()
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(count)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dataset.json", json.dumps({"labels": list(zip(names, labels))}))
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), png)


def test_opening_takes_little_memory_for_each_label(tmp_path: Path, encode_image) -> None:
    count = 100_000  # beyond 65,535 entries a zip needs its ZIP64 records
    write_large_set(tmp_path / "large.zip", count, encode_image(np.full((4, 4, 4), 9, np.uint8)))
    command = [sys.executable, "-c", OPEN, str(tmp_path / "large.zip")]
    for _ in ("parsed", "from the cache"):
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        found, grown, _seconds = (float(word) for word in done.stdout.split())
        assert found == 2 * count
        # 50 MB, 500 bytes a label; zipfile and json took 2,800 bytes.
        assert grown < 50e6
    assert list((tmp_path / "cache" / "labels").iterdir())


@given(st.lists(st.text(max_size=6), max_size=30), st.lists(st.text(max_size=6), max_size=10))
@settings(deadline=None, max_examples=60)
def test_names_are_a_list_and_the_index_finds_the_last(names: list[str], others: list[str]) -> None:
    index = NameIndex(names)
    assert list(index) == names
    assert [index[i] for i in range(len(names))] == names
    last = {name: position for position, name in enumerate(names)}
    asked = names + others
    assert index.find_all(asked).tolist() == [last.get(name, -1) for name in asked]
    assert [index.find(name) for name in asked] == [last.get(name, -1) for name in asked]
    assert Names.from_arrays(*Names(names).arrays()) == names


LABELS = orbit(torch.linspace(-0.5, 0.5, 9), torch.zeros(9)).to_labels().tolist()


def label_text(names: list[str], indent: int | None = None) -> bytes:
    return json.dumps({"labels": list(zip(names, LABELS))}, indent=indent).encode()


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
@pytest.mark.parametrize("indent", [None, 1])
def test_labels_read_in_pieces_equal_those_read_at_once(size: int, indent: int | None) -> None:
    content = label_text([f"é]{i}.png" for i in range(9)], indent)
    streamed = stream_labels(content[i : i + size] for i in range(0, len(content), size))
    assert streamed is not None
    pairs = parse_label_file(content, Path("x"))
    assert streamed[0] == [name for name, _ in pairs]
    assert np.array_equal(streamed[1], check_labels(pairs, Path("x")).astype(np.float32))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"labels": []}',
        label_text(["a.png"])[:-1],
        label_text(["a.png"]) + b"x",
        label_text(["a.png"]).replace(b"1.0", b"true", 1),
        label_text(["a.png"]).replace(b"1.0", b'"1.0"', 1),
        label_text(["a.png"]).replace(b"1.0", b"NaN", 1),
        label_text(["a.png"]).replace(b"1.0", b"7.0", 1),
        label_text(["a.png", "b.png"]).replace(b"]], [", b"]] ["),
        json.dumps({"a.png": LABELS[0]}).encode(),
    ],
)
def test_anything_unusual_is_left_to_the_reader_of_whole_files(content: bytes) -> None:
    assert stream_labels([content]) is None


class TestZip:
    """Our reader of the table of contents against the writer of the standard library."""

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    @pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n"])
    def test_reads_what_zipfile_writes(self, tmp_path: Path, method: int, before: bytes) -> None:
        contents = {"dataset.json": b"{}", "é/ü.bin": bytes(range(256)) * 50_000, "empty": b""}
        with (tmp_path / "a.zip").open("wb") as file:
            file.write(before)
            with zipfile.ZipFile(file, "w", method) as archive:
                if method != zipfile.ZIP_BZIP2:  # zipfile, which reads those for us, is misled by it
                    archive.comment = b"PK\5\6 is no end record"
                archive.writestr("folder/", b"")
                for name, content in contents.items():
                    with archive.open(name, "w", force_zip64=True) as entry:
                        entry.write(content)
        source = ZipSource(tmp_path / "a.zip")
        assert set(source.names) == set(contents)
        for name, content in contents.items():
            assert source.read(name) == content

    def test_damage_anywhere_is_one_clear_error(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("dataset.json", b'{"a": 1}' * 40)
            archive.writestr("x.bin", bytes(range(200)))
        good = path.read_bytes()
        random = np.random.default_rng(0)
        refused = 0
        for _ in range(400):
            content = bytearray(good)
            for position in random.integers(0, len(good), 3):
                content[position] = random.integers(256)
            path.write_bytes(content[: random.integers(len(good) // 2, len(good) + 1)])
            try:
                source = ZipSource(path)
                for name in source.names:
                    source.read(name)
            except DatasetError as error:
                refused += "\n" not in str(error)
        assert refused > 300
