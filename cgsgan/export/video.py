"""Frames -> a moving picture: mp4 and webm through PyAV (optional), animated WebP and GIF through Pillow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cgsgan.export.atomic import atomic_path

Frame = UInt8[np.ndarray, "_ _ _"]
"""RGB or, with straight alpha, RGBA; rows from the top."""
TRANSPARENT_FORMATS = ("webp",)
"""Those of :func:`save_video` that hold RGBA."""

BT709 = 1
"""Code of BT.709 for matrix, primaries and transfer in H.264, H.265 and VP9 streams (ITU-T H.273)."""
LIMITED_RANGE = 1
"""FFmpeg's code for luma in 16..235, which is what players assume."""


@dataclass(frozen=True, kw_only=True)
class _Codec:
    container: str
    encoder: str
    options: dict[str, str]
    container_options: dict[str, str]


_CODECS = {
    # faststart moves the index to the front, so that browsers play while they load.
    "mp4": _Codec(
        container="mp4",
        encoder="libx264",
        options={"crf": "18", "preset": "medium"},
        container_options={"movflags": "+faststart"},
    ),
    # A target bit rate of 0 is what makes crf the only control of quality in VP9.
    "webm": _Codec(
        container="webm",
        encoder="libvpx-vp9",
        options={"crf": "24", "b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "4"},
        container_options={},
    ),
}
FORMATS = (*_CODECS, "webp", "gif")


def save_video(
    path: str | os.PathLike[str],
    frames: Iterable[Frame],
    *,
    fps: float | int = 24,
    format: str | None = None,
    repeat: int = 1,
) -> int:
    """Write frames as a moving picture, atomically.

    Args:
        path: the file; missing folders are created.
        frames: 8-bit RGB pictures of one size, for webp also RGBA. When ``repeat`` is 1 they are taken one by one, for
            webp and gif if they have a length; so the film need not fit into memory, but for gif, which keeps a byte
            for each pixel.
        fps: frames per second.
        format: ``mp4`` (H.264 4:2:0, crf 18), ``webm`` (VP9), ``webp`` (quality 90) or ``gif``; by default
            the suffix of ``path``. WebP and GIF loop for ever and need nothing but Pillow.
        repeat: how often the frames are played in one file; mp4 and webm cannot loop by themselves.

    Returns:
        The number of frames given, repetitions not counted.

    Raises:
        ValueError: for an unknown format, no frame, frames of unequal size, ``fps`` or ``repeat`` out of
            range, or when PyAV or the encoder is missing for mp4 and webm.
    """
    target = Path(path)
    format = (format or target.suffix.lstrip(".")).lower()
    if format not in FORMATS:
        raise ValueError(f"{target}: expected a video format {' '.join(FORMATS)}, got {format!r}")
    if not (0 < fps < math.inf) or repeat < 1:
        raise ValueError(f"{target}: expected fps > 0 and repeat >= 1, got fps {fps} and repeat {repeat}")
    checked = _CheckedFrames(target, frames, channels=(3, 4) if format in TRANSPARENT_FORMATS else (3,))
    played = _repeated(checked, repeat)
    if format in _CODECS:
        _encode(target, played, fps=fps, codec=_CODECS[format], av=_import_av(format))
        return checked.count
    if repeat == 1 and isinstance(frames, Sized) and len(frames):
        count = len(frames)
    else:
        kept = list(played)
        played, count = iter(kept), len(kept)
    _animate(target, _Reel(played, count), fps=fps, format=format)
    return checked.count


class _CheckedFrames:
    """Passes frames on while it counts them and holds them to one size."""

    def __init__(self, path: Path, frames: Iterable[Frame], *, channels: tuple[int, ...]) -> None:
        self.count = 0
        self._path = path
        self._frames = frames
        self._channels = channels

    def __iter__(self) -> Iterator[Frame]:
        size = None
        for frame in self._frames:
            size = frame.shape if size is None else size
            fits = frame.ndim == 3 and frame.shape[-1] in self._channels and frame.shape == size
            if not fits or frame.dtype != np.uint8:
                channels = " or ".join(map(str, self._channels))
                raise ValueError(
                    f"{self._path}: expected uint8 frames of shape {size} with {channels} channels, "
                    f"frame {self.count} is {frame.dtype} {frame.shape}"
                )
            self.count += 1
            yield frame
        if self.count == 0:
            raise ValueError(f"{self._path}: expected at least one frame, got none")


def _repeated(frames: Iterable[Frame], repeat: int) -> Iterator[Frame]:
    if repeat == 1:
        yield from frames
    else:
        kept = list(frames)
        for _ in range(repeat):
            yield from kept


def _import_av(format: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ValueError(
            f'{format} needs PyAV: pip install "cgsgan[video]"; or choose webp or gif, which need no extra'
        ) from error
    return av


def _encode(path: Path, frames: Iterator[Frame], *, fps: float | int, codec: _Codec, av: Any) -> None:
    first = _even(next(frames))
    if codec.encoder not in av.codecs_available:
        raise ValueError(f"{path}: PyAV was built without {codec.encoder}; reinstall av, or use webp")
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format=codec.container, options=codec.container_options) as container,
    ):
        stream = container.add_stream(codec.encoder, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
        stream.options = codec.options
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        for packet in stream.encode(_to_yuv(first, av)):
            container.mux(packet)
        for frame in frames:
            for packet in stream.encode(_to_yuv(_even(frame), av)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _to_yuv(frame: Frame, av: Any) -> Any:
    # swscale would use the BT.601 matrix unless told; with BT.709 tags that shifts greens and reds visibly.
    return av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
    )


def _even(frame: Frame) -> Frame:
    """Repeat the last row or column where a side is odd: 4:2:0 colour comes in 2 x 2 blocks."""
    height, width = frame.shape[:2]
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)


class _Reel(Image.Image):
    """Frames as one Pillow image of several, which its writers ask for them one by one; none is kept."""

    def __init__(self, frames: Iterator[Frame], count: int) -> None:
        super().__init__()
        self.n_frames = count
        self._frames = frames
        self._position = -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Show the next frame; what was shown cannot be again (writers go back to the first when they are done)."""
        if frame >= self.n_frames:
            raise EOFError
        while self._position < frame:
            picture = Image.fromarray(next(self._frames))
            self.im, self._mode, self._size = picture.im, picture.mode, picture.size
            self._position += 1

    def tell(self) -> int:
        return self._position


def _animate(path: Path, reel: _Reel, *, fps: float | int, format: str) -> None:
    # GIF counts in 10 ms; rounding the running time instead of each frame keeps the film's length right.
    unit = 10 if format == "gif" else 1
    times = [unit * round(index * 1000 / fps / unit) for index in range(reel.n_frames + 1)]
    durations = [max(unit, end - start) for start, end in pairwise(times)]
    options: dict[str, Any] = {"quality": 90, "method": 4} if format == "webp" else {"disposal": 2, "optimize": False}
    with atomic_path(path) as temporary:
        reel.save(temporary, format=format.upper(), save_all=True, duration=durations, loop=0, **options)
