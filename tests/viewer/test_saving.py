"""Files have names of the server's making, in one folder, within limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgsgan.viewer.saving import OutputFolder, SaveRefusedError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def folder(path: Path, **limits) -> OutputFolder:
    return OutputFolder(path, **({"most_bytes": 1 << 20, "clock": Clock()} | limits))


def test_names_are_numbered_and_never_taken(tmp_path: Path):
    out = folder(tmp_path / "out")
    first = out.next_path("picture", ".png")
    assert first == tmp_path / "out" / "picture-0001.png"
    assert not first.parent.exists()
    first.parent.mkdir()
    first.write_bytes(b"1")
    (first.parent / "picture-0002.png").symlink_to(tmp_path / "elsewhere")
    assert out.next_path("picture", ".png").name == "picture-0003.png"
    assert out.next_path("head", ".ply").name == "head-0001.ply"


def test_too_soon_too_many_too_much(tmp_path: Path):
    hurried = folder(tmp_path, interval=60)
    hurried.next_path("picture", ".png")
    with pytest.raises(SaveRefusedError, match="one file in 60 s"):
        hurried.next_path("picture", ".png")
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    with pytest.raises(SaveRefusedError, match="holds 1 MB"):
        folder(tmp_path).next_path("picture", ".png")
    with pytest.raises(SaveRefusedError, match="holds 1 files"):
        folder(tmp_path, most_files=1, most_bytes=1 << 30).next_path("picture", ".png")
