"""Films: a frame is a function of its number, loops close, nothing half-written stays."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from cgsgan.cameras import Cameras, turntable
from cgsgan.config import ExperimentConfig
from cgsgan.export.video import save_video
from cgsgan.film import Film, FrameOptions, grid_columns, save_film, turn_heads, walk_heads
from cgsgan.gallery import generate_scenes, latents_from_seeds
from cgsgan.generators import TrainedGenerator, build_generator
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.types import Gaussians
from tests.tiny_experiment import randomize, tiny_config, tiny_planes

SIZE = 24


def trained(config: ExperimentConfig) -> TrainedGenerator:
    torch.manual_seed(0)
    network = build_generator(config.generator)
    randomize(network)
    return TrainedGenerator(network, config).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["gaussians", "triplanes"])
def generator(request: pytest.FixtureRequest) -> TrainedGenerator:
    return trained(tiny_config() if request.param == "gaussians" else tiny_planes())


def options(**changes) -> FrameOptions:
    return FrameOptions(**{"size": SIZE, **changes})


def film(generator: TrainedGenerator, walk: bool, frames: int = 6, **changes) -> Film:
    """Everything made anew, as by another call of the command."""
    z, cameras = latents_from_seeds([0, 1, 2], generator.z_dim), turntable(frames)
    if walk:
        stations = generator.map_latents(z)[:, None]
        return walk_heads(generator, generator.renderer, stations, cameras, options(**changes))
    return turn_heads(generator.renderer, generate_scenes(generator, z), cameras, options(**changes))


def disc() -> Gaussians:
    """A flat, opaque, red Gaussian at the origin, facing +z."""
    return Gaussians(
        means=torch.zeros(1, 1, 3),
        quats=torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
        scales=torch.tensor([[[0.1, 0.1, 1e-4]]]),
        opacities=torch.ones(1, 1),
        colors=torch.tensor([[[1.0, 0.0, 0.0]]]),
    )


def disc_film(cameras: Cameras, **changes) -> Film:
    return turn_heads(SplattingRenderer(SplattingConfig(), training_size=SIZE), disc(), cameras, options(**changes))


@pytest.mark.parametrize("walk", [False, True])
def test_a_frame_made_alone_is_the_frame_of_the_film(generator: TrainedGenerator, walk: bool):
    whole = list(film(generator, walk, show=("color", "depth", "normal")))
    for index in (4, 1, 4):
        assert np.array_equal(film(generator, walk, show=("color", "depth", "normal")).frame(index), whole[index])
    assert len({frame.tobytes() for frame in whole}) == 6


@pytest.mark.parametrize("walk", [False, True])
def test_a_film_of_twice_the_frames_passes_the_same_places(generator: TrainedGenerator, walk: bool):
    """So the last frame is one step before the first: the end of the loop is not shown twice."""
    short, long = film(generator, walk, frames=3), film(generator, walk, frames=6)
    for index in range(3):
        assert np.array_equal(long.frame(2 * index), short.frame(index))


def test_a_walk_shows_the_heads_it_is_told(generator: TrainedGenerator):
    z = latents_from_seeds([5, 6], generator.z_dim)
    cameras = turntable(4, kind="still")
    stations = generator.map_latents(z)[:, None]
    walked = walk_heads(generator, generator.renderer, stations, cameras, options())
    for station in range(2):
        scene = generate_scenes(generator, z[station : station + 1])
        alone = turn_heads(generator.renderer, scene, cameras, options()).frame(0)
        assert np.array_equal(walked.frame(2 * station), alone)


def test_transparent_frames_lie_on_any_background():
    cameras = turntable(3)
    for color in ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.2, 0.6, 1.0)):
        for kind in ("color", "depth", "normal"):
            clear = disc_film(cameras, background=None, show=(kind,)).frame(1).astype(float) / 255
            solid = disc_film(cameras, background=color, show=(kind,)).frame(1).astype(float) / 255
            laid = clear[..., :3] * clear[..., 3:] + np.array(color) * (1 - clear[..., 3:])
            assert np.abs(laid - solid).max() < 1.3 / 255  # observed 1.0: colour and coverage are rounded


def test_what_is_shown_of_a_disc_that_faces_the_front():
    front = disc_film(turntable(1, kind="still"), show=("color", "depth", "normal", "alpha")).frame(0)
    assert front.shape == (SIZE + 4, 4 * (SIZE + 2) + 2, 3)
    color, depth, normal, alpha = (front[2 + SIZE // 2, 2 + SIZE // 2 + i * (SIZE + 2)].tolist() for i in range(4))
    share = alpha[0] / 255
    assert share == pytest.approx(0.98, abs=0.01)  # opacities are capped at 0.99, and no pixel is in the middle

    def close(pixel, expected, white: float = 255.0) -> bool:
        return bool(np.abs(np.asarray(pixel, float) - np.array(expected) * share - white * (1 - share)).max() < 1.5)

    assert close(color, (255, 0, 0))
    assert close(alpha, (255, 255, 255), white=0)
    assert close(depth, (33, 144, 141))  # the middle of the scale
    assert close(normal, (127.5, 127.5, 255))
    # From 60 degrees to the subject's left: still +z in the world, 60 degrees to the left in the camera.
    aside = turntable(1, kind="still", yaw=math.pi / 3)
    world, seen, alpha = (
        disc_film(aside, show=(kind,), normal_axes=axes).frame(0)[SIZE // 2, SIZE // 2]
        for kind, axes in (("normal", "world"), ("normal", "camera"), ("alpha", "world"))
    )
    share = alpha[0] / 255
    assert close(world, (127.5, 127.5, 255))
    assert close(seen, (127.5 * (1 - math.sin(math.pi / 3)), 127.5, 127.5 * 1.5))


def test_grids():
    assert [grid_columns(count) for count in (1, 3, 8, 16, 17, 40)] == [1, 3, 4, 4, 5, 7]
    assert grid_columns(2, 5) == 2
    heads = Gaussians.cat([disc()] * 6)
    renderer = SplattingRenderer(SplattingConfig(), training_size=SIZE)
    grid = turn_heads(renderer, heads, turntable(1), options(columns=2, background=(0.0, 0.0, 1.0))).frame(0)
    assert grid.shape == (3 * (SIZE + 2) + 2, 2 * (SIZE + 2) + 2, 3)
    assert grid[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match="at most 8192 pixels a side, 6 heads of 6000 would make 18006"):
        turn_heads(renderer, heads, turntable(1), options(columns=2, size=6000)).frame(0)
    with pytest.raises(ValueError, match="something to show"):
        turn_heads(renderer, heads, turntable(1), options(show=()))


def test_a_folder_of_frames(tmp_path: Path):
    turning = disc_film(turntable(3), background=None)
    told: list[tuple[str, int, int]] = []
    for _ in range(2):  # the second time, the first folder is replaced
        assert save_film(tmp_path / "disc", turning, progress=lambda *report: told.append(report)) == 3
    assert told[:4] == [("frames of disc", done, 3) for done in range(4)]
    for index in range(3):
        with Image.open(tmp_path / "disc" / f"{index:05d}.png") as picture:
            assert np.array_equal(np.asarray(picture), turning.frame(index))
    (tmp_path / "disc" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds notes\.txt, which is no frame"):
        save_film(tmp_path / "disc", turning)
    with pytest.raises(ValueError, match="mp4 holds no transparency here; choose webp or png"):
        save_film(tmp_path / "disc.mp4", turning)
    assert [path.name for path in tmp_path.iterdir()] == ["disc"]


def test_transparent_webp(tmp_path: Path):
    save_film(tmp_path / "disc.webp", disc_film(turntable(3), background=None))
    with Image.open(tmp_path / "disc.webp") as picture:
        frames = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(picture)]
    assert len(frames) == 3
    assert frames[1][0, 0, 3] == 0
    assert frames[1][SIZE // 2, SIZE // 2, 3] >= 248  # 0.98 of 255


@pytest.mark.parametrize("name", ["film.webp", "film.gif", "film.mp4", "film"])
def test_an_interrupted_film_leaves_nothing(tmp_path: Path, name: str):
    if name.endswith("mp4"):
        pytest.importorskip("av")
    path = tmp_path / name
    save_film(path, disc_film(turntable(2)))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def progress(task: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_film(path, disc_film(turntable(6)), progress=progress)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("format", ["webp", "mp4"])
def test_frames_are_not_kept(tmp_path: Path, format: str):
    if format == "mp4":
        pytest.importorskip("av")
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    class Frames:
        def __len__(self) -> int:
            return 20

        def __iter__(self) -> Iterator[np.ndarray]:
            nonlocal most
            for index in range(20):
                frame = np.full((32, 32, 3), 10 * index, np.uint8)
                alive.append(weakref.ref(frame))
                yield frame
                del frame
                most = max(most, sum(kept() is not None for kept in alive))

    assert save_video(tmp_path / f"film.{format}", Frames()) == 20
    assert most <= 3  # observed 1 in both
