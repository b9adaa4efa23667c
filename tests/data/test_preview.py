from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cgsgan.cli.data import run
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.data.preview import contact_sheet, pose_histogram


@pytest.fixture
def heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "heads.zip"
    assert run(["make", "--out", str(path), "--count", "7", "--resolution", "16"]) == 0
    assert f"wrote 7 heads of 16 px to {path}" in capsys.readouterr().out
    return path


def test_making_heads_replaces_nothing_unasked(heads: Path) -> None:
    before = heads.read_bytes()
    again = ["make", "--out", str(heads), "--count", "3", "--resolution", "16"]
    with pytest.raises(ValueError, match="exists; choose another name"):
        run(again)
    assert heads.read_bytes() == before
    assert run([*again, "--overwrite"]) == 0
    assert heads.read_bytes() != before


def test_sheet_holds_the_pictures_over_white(heads: Path) -> None:
    dataset = open_dataset(DataConfig(path=str(heads), resolution=16, x_flip=False))
    sheet = contact_sheet(dataset, 7, show_yaw=False)
    assert sheet.size == (48, 48)
    assert sheet.getpixel((47, 47)) == (255, 255, 255)  # places 8 and 9 are empty
    corner = dataset.read([0]).premultiplied[0]
    expected = tuple(round(float(v)) for v in ((corner[:3] + 1 - corner[3:])[:, 8, 8] * 255))
    assert sheet.getpixel((8, 8)) == expected
    assert sum(int(line.rsplit(maxsplit=1)[-1]) for line in pose_histogram(dataset).splitlines() if ".." in line) == 14


def test_check_and_preview_commands(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(heads)]) == 0
    assert "7 labels, 7 readable pictures (7 RGBA), size 16 px" in capsys.readouterr().out
    out = tmp_path / "deep" / "sheet.png"
    assert run(["preview", str(heads), "--out", str(out), "--count", "4", "--resolution", "16"]) == 0
    assert Image.open(out).size == (32, 32)
    assert f"wrote 4 of 7 pictures to {out}" in capsys.readouterr().out
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "dataset.json").write_text("{}")
    assert run(["check", str(broken)]) == 1
    assert "problem: 1 x data set cannot be read" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"expected a \.png or \.jpg file"):
        run(["preview", str(heads), "--out", "sheet.txt", "--resolution", "16"])
