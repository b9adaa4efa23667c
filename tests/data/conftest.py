"""Small data sets on disk."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cgsgan.cameras import orbit

WriteSet = Callable[..., Path]


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def random_files(count: int, size: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    """PNG files of random RGBA, and their ``dataset.json``."""
    rng = np.random.default_rng(5)
    yaw, pitch = torch.linspace(-0.9, 0.9, count), torch.linspace(0.2, -0.3, count)
    labels = orbit(yaw, pitch).to_labels().tolist()
    names = [f"00000/img{i:04d}.png" for i in range(count)]
    pictures = rng.integers(0, 256, (count, size, size, 4), dtype=np.uint8)
    return (
        {name: encode(picture) for name, picture in zip(names, pictures, strict=True)},
        {"labels": [[name, label] for name, label in zip(names, labels, strict=True)]},
    )


@pytest.fixture
def files() -> tuple[dict[str, bytes], dict[str, Any]]:
    return random_files(count=6, size=8)


@pytest.fixture
def encode_image() -> Callable[..., bytes]:
    return encode


def write_tar(path: Path, contents: dict[str, bytes]) -> Path:
    """A .tar as ``tar`` would write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def shard_files(contents: dict[str, bytes], labels: dict[str, Any]) -> list[dict[str, bytes]]:
    """The files of two shards with a sample for each label."""
    entries = labels["labels"]
    shards: list[dict[str, bytes]] = [{}, {}]
    for number, (name, label) in enumerate(entries):
        shard = shards[2 * number // len(entries)]
        shard[name] = contents[name]
        shard[os.path.splitext(name)[0] + ".json"] = json.dumps({"label": label}).encode()
    return shards


@pytest.fixture
def tar_writer() -> Callable[..., Path]:
    return write_tar


@pytest.fixture(params=["folder", "zip", "shards"])
def write_any_set(request: pytest.FixtureRequest, tmp_path: Path) -> WriteSet:
    """Writes files and labels, which must fit each other, as a folder, a zip or shards, and gives its path."""
    if request.param != "shards":
        return _writer(request.param, tmp_path)

    def write(contents: dict[str, bytes], labels: dict[str, Any]) -> Path:
        for number, shard in enumerate(shard_files(contents, labels)):
            write_tar(tmp_path / "shards" / f"heads-{number:06d}.tar", shard)
        return tmp_path / "shards"

    return write


@pytest.fixture(params=["folder", "zip"])
def write_set(request: pytest.FixtureRequest, tmp_path: Path) -> WriteSet:
    """Writes files and labels as a folder or as a zip, and gives its path."""
    return _writer(request.param, tmp_path)


def _writer(kind: str, tmp_path: Path) -> WriteSet:

    def write(contents: dict[str, bytes], labels: dict[str, Any] | None) -> Path:
        everything = dict(contents)
        if labels is not None:
            everything["dataset.json"] = json.dumps(labels).encode()
        if kind == "zip":
            path = tmp_path / "set.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in everything.items():
                    archive.writestr(name, content)
            return path
        for name, content in everything.items():
            target = tmp_path / "set" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return tmp_path / "set"

    return write


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests never touch the user's cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CGSGAN_CACHE", str(folder))
    return folder
