"""Whole passes under the address and undefined-behaviour sanitizers, and under the thread sanitizer.

A pass is recorded with the plain emulation, then the same launches are replayed by an instrumented program: it must
find nothing and leave the same bits everywhere, whatever the order of threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rasterizer.cuda_abi import Stage
from tests.rasterizer.emulated import load_emulation
from tests.rasterizer.emulation.build import Sanitizer, build_replay
from tests.rasterizer.emulation.recording import find_differences, record_pass, replay
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

ORDERS = [(0, 0), (1, 0), (2, 1), (2, 2)]


def check(
    sanitizer: Sanitizer,
    folder: Path,
    *,
    kind: str = "normal",
    batch: int,
    views: int,
    count: int,
    width: int,
    height: int,
    channels: int = 3,
    **options: Any,
) -> None:
    sh_degree, depth = options.get("sh_degree"), options.get("depth", True)
    arguments = {
        **make_scene(kind, batch=batch, count=count, channels=channels, sh_degree=sh_degree, seed=1),
        **make_cameras(batch=batch, views=views, width=width, height=height),
        "backgrounds": make_backgrounds(batch=batch, views=views, channels=channels),
    }
    library = load_emulation(channels, depth).library
    launches = record_pass(library, arguments, width=width, height=height, **options)
    assert [launch.stage for launch in launches] == list(Stage)
    program = build_replay(channels, depth, sanitizer=sanitizer)
    # With atomics the order of threads is the order of sums.
    for order, seed in ORDERS if options.get("deterministic", True) else ORDERS[:1]:
        done = replay(program, launches, folder, order=order, seed=seed)
        assert (done.returncode, done.stderr) == (0, "")
        assert find_differences(launches, folder) == []


ADDRESS_CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "atomics": {"deterministic": False},
    "inria": {"inria": True, "kind": "border"},
    "harmonics": {"sh_degree": 3, "antialiased": True},
    "degenerate": {"kind": "degenerate"},
    "long lists": {"kind": "huge", "batch": 1, "count": 400},
    "ragged": {"width": 53, "height": 19, "count": 1},
}


@pytest.mark.parametrize("case", ADDRESS_CASES)
def test_address(case: str, tmp_path: Path) -> None:
    size: dict[str, Any] = {"batch": 2, "views": 3, "count": 60, "width": 48, "height": 40}
    check("address", tmp_path, **(size | ADDRESS_CASES[case]))


@pytest.mark.slow  # 10 s of g++
def test_address_of_unpacked_colors(tmp_path: Path) -> None:
    size: dict[str, Any] = {"batch": 2, "views": 3, "count": 60, "width": 48, "height": 40}
    check("address", tmp_path, channels=9, depth=False, **size)


THREAD_CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "atomics": {"deterministic": False},
    # More entries in a tile than a block stages at once.
    "batches": {"count": 300, "kind": "huge", "views": 1},
}


@pytest.mark.parametrize("case", THREAD_CASES)
def test_thread(case: str, tmp_path: Path) -> None:
    size: dict[str, Any] = {"batch": 1, "views": 2, "count": 12, "width": 16, "height": 16}
    check("thread", tmp_path, **(size | THREAD_CASES[case]))
