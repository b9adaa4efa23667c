"""Kernels broken on purpose: what the emulation must notice in the real thing, not only in exercises.

Every block-wide barrier is left out in turn, and indices are shifted by one in copies of the sources.
"""

from __future__ import annotations

import ctypes
import re
import shutil
from pathlib import Path

import pytest

from rasterizer.backend import BackendError
from rasterizer.cuda_abi import CudaLibrary, Stage
from tests.rasterizer.emulated import load_emulation
from tests.rasterizer.emulation.build import SOURCES, build_emulation, build_replay
from tests.rasterizer.emulation.recording import Launch, find_differences, record_pass, replay
from tests.rasterizer.scenes import make_cameras, make_scene

BARRIER = re.compile(r"^[^/]*__syncthreads\w*\(")


def find_barriers() -> list[tuple[str, int]]:
    """File and line of every barrier of the kernels."""
    files = sorted((SOURCES / "cuda").glob("*.cuh"))
    lines = [(file.name, i, line) for file in files for i, line in enumerate(file.read_text().splitlines(), 1)]
    return [(name, i) for name, i, line in lines if BARRIER.match(line)]


def record(library: CudaLibrary, kind: str, *, views: int, count: int, width: int, height: int) -> list[Launch]:
    arguments = {**make_scene(kind, count=count), **make_cameras(views=views, width=width, height=height)}
    return record_pass(library, arguments, width=width, height=height)


@pytest.fixture(scope="module")
def launches() -> list[Launch]:
    return record(load_emulation(3, True).library, "normal", views=2, count=60, width=48, height=40)


@pytest.fixture(scope="module")
def long_launches() -> list[Launch]:
    """Lists that take more than one turn of every loop: 33 views of a scene and 300 entries in a tile."""
    return record(load_emulation(3, True).library, "huge", views=33, count=300, width=16, height=16)


def test_barriers_are_found() -> None:
    assert {"blend.cuh", "blend_backward.cuh", "project_backward.cuh"} <= {name for name, _ in find_barriers()}


def test_no_race_with_all_barriers(long_launches: list[Launch], tmp_path: Path) -> None:
    done = replay(build_replay(3, True, sanitizer="thread"), long_launches, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert find_differences(long_launches, tmp_path) == []


@pytest.mark.parametrize("barrier", find_barriers(), ids=lambda barrier: f"{barrier[0]}-{barrier[1]}")
def test_missing_barrier_is_a_race(barrier: tuple[str, int], long_launches: list[Launch], tmp_path: Path) -> None:
    program = build_replay(3, True, sanitizer="thread")
    done = replay(program, long_launches, tmp_path, without=barrier)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr


# By stage: file, text, its replacement, and what a sanitizer says of it.
SHIFTS = {
    Stage.EMIT: ("emit.cuh", "p.order[rank]", "p.order[rank + 1]", "heap-buffer-overflow"),
    Stage.LIST: ("list.cuh", "if (i >= p.instances) return;", "if (i > p.instances) return;", "heap-buffer-overflow"),
    Stage.BLEND: ("blend.cuh", "p.out_alphas[index] =", "p.out_alphas[index + 1] =", "heap-buffer-overflow"),
    Stage.PROJECT_BACKWARD: (
        "project_backward.cuh", "partials[i][threadIdx.x]", "partials[i + 1][threadIdx.x]", "global-buffer-overflow",
    ),
}  # fmt: skip


def change_sources(folder: Path, changes: list[tuple[str, str, str]]) -> Path:
    """A copy of the sources with the first occurrence of each (file, text, replacement) replaced."""
    copy = folder / "csrc"
    shutil.copytree(SOURCES, copy)
    for name, text, replacement in changes:
        path = copy / "cuda" / name
        before = path.read_text()
        assert text in before, f"{name} has changed: choose another place to break"
        path.write_text(before.replace(text, replacement, 1))
    return copy


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One program with a fault in each of several stages: 10 s of g++ once, not for each."""
    changes = [(name, text, replacement) for name, text, replacement, _ in SHIFTS.values()]
    sources = change_sources(tmp_path_factory.mktemp("shifted"), changes)
    return build_replay(3, True, sanitizer="address", sources=sources)


@pytest.mark.slow  # the build
@pytest.mark.parametrize("stage", SHIFTS, ids=lambda stage: stage.name)
def test_shifted_index_is_found(stage: Stage, shifted: Path, launches: list[Launch], tmp_path: Path) -> None:
    name, _, _, report = SHIFTS[stage]
    only = [launch for launch in launches if launch.stage == stage]
    done = replay(shifted, only, tmp_path)
    assert done.returncode != 0
    assert report in done.stderr
    assert name in done.stderr


def test_missing_thread_is_an_error_of_the_launch(tmp_path: Path) -> None:
    changes = [("blend_backward.cuh", "__syncthreads();", "if (threadIdx.x != 70) __syncthreads();")]
    path = build_emulation(3, True, sources=change_sources(tmp_path, changes))
    emulation = ctypes.CDLL(str(path))
    emulation.rz_emulation_last_error.restype = ctypes.c_char_p
    with pytest.raises(BackendError) as caught:
        record(CudaLibrary(path), "normal", views=1, count=60, width=48, height=40)
    message = emulation.rz_emulation_last_error().decode()
    assert re.match(r"rz_blend_backward, block \(\d+,0\): thread \d+ at __syncthreads .* waits for thread", message)
    assert str(caught.value).endswith(message)
