from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from cgsgan.export import save_video

COLORS = np.array([[200, 40, 40], [40, 180, 60], [50, 60, 210], [220, 200, 60], [128, 128, 128]])


def moving_frames(count: int = 10, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Flat colours with a bar that moves, so that no two frames are alike."""
    frames = []
    for index in range(count):
        frame = np.empty((height, width, 3), np.uint8)
        frame[:] = COLORS[index % len(COLORS)]
        frame[:, 4 * index : 4 * index + 8] = 255 - COLORS[index % len(COLORS)]
        frames.append(frame)
    return frames


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


# Worst frame observed: webp 28.0 dB (its colour is 4:2:0 and the bars are saturated), gif exact.
@pytest.mark.parametrize(("format", "floor"), [("webp", 26.0), ("gif", 45.0)])
def test_pillow_formats_hold_frames_time_and_loop(tmp_path: Path, format: str, floor: float) -> None:
    frames = moving_frames()
    path = tmp_path / f"a.{format}"
    assert save_video(path, iter(frames), fps=24) == 10
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        decoded, duration = [], 0
        for picture in ImageSequence.Iterator(film):
            picture.load()
            duration += picture.info["duration"]
            decoded.append(np.asarray(picture.convert("RGB")))
    assert len(decoded) == 10
    assert duration == pytest.approx(1000 * 10 / 24, abs=10)
    assert min(psnr(a, b) for a, b in zip(decoded, frames)) > floor
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("format", "codec"), [("mp4", "h264"), ("webm", "vp9")])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_pyav_formats_hold_frames_tags_and_even_sizes(
    tmp_path: Path, format: str, codec: str, size: tuple[int, int]
) -> None:
    av = pytest.importorskip("av")
    frames = moving_frames(12, *size)
    path = tmp_path / f"a.{format}"
    assert save_video(path, iter(frames), fps=30) == 12
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name in (codec, f"lib{codec}", "libvpx-vp9")
        assert stream.average_rate == 30
        assert (stream.height, stream.width) == (48, 64)
        assert stream.codec_context.pix_fmt == "yuv420p"
        decoded = list(film.decode(video=0))
    assert len(decoded) == 12
    assert {int(frame.colorspace) for frame in decoded} == {1}
    assert {int(frame.color_range) for frame in decoded} == {1}
    for frame, original in zip(decoded, frames):
        pixels = frame.reformat(format="rgb24", src_colorspace="ITU709", dst_color_range="JPEG").to_ndarray()
        flat = (slice(4, 44), slice(56, 62))  # away from the bar: tests colour, not resampling
        difference = np.abs(pixels[flat].astype(int) - original[flat])
        assert difference.max() <= 8  # worst observed 2 (mp4), 3 (webm); decoded with BT.601 it is 23 and more


def test_mp4_index_stands_before_the_pictures(tmp_path: Path) -> None:
    pytest.importorskip("av")
    save_video(tmp_path / "a.mp4", moving_frames())
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_repeat_plays_the_frames_again(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    assert save_video(tmp_path / "a.mp4", iter(moving_frames(5)), repeat=3) == 5
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert len(list(film.decode(video=0))) == 15


def test_missing_pyav_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r'pip install "cgsgan\[video\]"') as caught:
        save_video(tmp_path / "a.mp4", moving_frames())
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    save_video(tmp_path / "a.webp", moving_frames(2))


@pytest.mark.parametrize("format", ["mp4", "webp"])
def test_refuses_what_is_no_film(tmp_path: Path, format: str) -> None:
    if format == "mp4":
        pytest.importorskip("av")
    path = tmp_path / f"a.{format}"
    with pytest.raises(ValueError, match="at least one frame"):
        save_video(path, iter([]))
    with pytest.raises(ValueError, match="frame 1 is uint8"):
        save_video(path, [*moving_frames(1), *moving_frames(1, 20, 20)])
    with pytest.raises(ValueError, match="fps"):
        save_video(path, moving_frames(), fps=0)
    with pytest.raises(ValueError, match="repeat"):
        save_video(path, moving_frames(), repeat=0)
    with pytest.raises(ValueError, match="'avi'"):
        save_video(path, moving_frames(), format="avi")
    assert list(tmp_path.iterdir()) == []
