"""The emulation of CUDA itself, on small kernels of its own.

Right ones give the right numbers in every order of threads; faults that would hang a GPU, or give wrong numbers on some
days only, are found and named.

A switch between emulated threads takes 3 to 7 ns where this was written (32 or 256 stacks in use); per thread, a
barrier of 256 threads takes 9 ns and a shuffle 12 ns.
"""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.rasterizer.emulation import build

BLOCK, BLOCKS = 128, 3
COUNT = BLOCK * BLOCKS
FORWARD, REVERSE, RANDOM = 0, 1, 2
ORDERS = [(FORWARD, 0), (REVERSE, 0), (RANDOM, 1), (RANDOM, 2), (RANDOM, 3)]
INPUT = np.random.default_rng(5).integers(-8, 9, COUNT).astype(np.float32)  # sums are exact
WARPS = INPUT.reshape(-1, 32)


class Outcome(NamedTuple):
    error: str  # empty: none
    output: np.ndarray
    integers: np.ndarray


@functools.cache
def load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build.build_exercises()))
    text, pointer, size = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64
    library.run_exercise.argtypes = [text, ctypes.c_int, ctypes.c_uint64, pointer, pointer, pointer, text, size]
    return library


def exercise(name: str, order: int = FORWARD, seed: int = 0) -> Outcome:
    output, integers = np.zeros(COUNT + 1, np.float32), np.zeros(COUNT, np.int32)
    message = ctypes.create_string_buffer(512)
    code = load().run_exercise(
        name.encode(), order, seed, INPUT.ctypes.data, output.ctypes.data, integers.ctypes.data, message, 512
    )
    assert code in (0, 1)
    assert (code == 1) == bool(message.value)
    return Outcome(message.value.decode(), output[:COUNT], integers)


def shuffle_segments() -> np.ndarray:
    lanes = np.arange(COUNT)
    first, place = lanes - lanes % 8, lanes % 8
    down = np.where(place + 3 < 8, lanes + 3, lanes)
    up = np.where(place >= 3, lanes - 3, lanes)
    # A lane of a later segment cannot be read, one of an earlier can: here it is always the own segment.
    across = first + (place ^ 5)
    rotated = first + (place + 9) % 8
    return INPUT[rotated] + 2 * INPUT[down] + 4 * INPUT[up] + 8 * INPUT[across]


def split_warp() -> np.ndarray:
    low, high = WARPS[:, :16].sum(1, keepdims=True), WARPS[:, 31:]
    return (np.repeat(np.concatenate([low, high], 1), 16, 1) + low).ravel()


def vote() -> np.ndarray:
    positive = WARPS > 0
    first = positive.argmax(1) + 1  # of the lowest lane; every warp has one and not all
    zeros = positive[:, ::-1].argmax(1)
    assert positive.any(1).all()
    assert not positive.all(1).any()
    return np.repeat(positive.sum(1) + 100 + 10000 * (first + zeros), 32)


FLOATS = {
    "reduce_block": np.repeat(INPUT.reshape(BLOCKS, BLOCK).sum(1), BLOCK),
    "reduce_warp": np.repeat(WARPS.sum(1), 32),
    "scan_warp": WARPS.cumsum(1).ravel(),
    "shuffle_segments": shuffle_segments(),
    "split_warp": split_warp(),
    "turn_warp": WARPS[:, ::-1].ravel(),
}
INTEGERS = {
    "vote": vote(),
    # A block leaves when all its threads have counted past its index.
    "leave_early": np.repeat(np.arange(BLOCKS) + 1, BLOCK) + 10,
}
RIGHT = [*FLOATS, *INTEGERS, "count_atomically"]

# By name, what the message says besides the kernel's.
FAULTS = {
    "barriers_in_branches": r"thread \d+ at __syncthreads \(exercises.cu:\d+\) waits for thread \d+, which is at",
    "barrier_for_some": r"thread \d+ at __syncthreads \(exercises.cu:\d+\) waits for thread \d+, which has ended",
    "warp_at_barrier": r"(thread \d+ at __shfl_sync .* waits for thread \d+, which is at __syncthreads)"
    r"|(thread 7 at __syncthreads .* waits for thread \d+, which has ended)",
    "lane_ends_in_mask": r"thread \d+ at __shfl_sync \(exercises.cu:\d+\) waits for thread 40, which has ended",
    "masks_differ": r"thread \d+ at __shfl_sync .* waits for thread \d+, which has ended",
    "collectives_differ": r"thread \d+ at __a(ny|ll)_sync .* waits for thread \d+, which is at __a(ny|ll)_sync",
    "lane_outside_mask": r"thread \d+ at __shfl_sync .* reads lane 16, which is not in the mask",
}


@pytest.mark.parametrize(("order", "seed"), ORDERS)
class TestRightKernels:
    @pytest.mark.parametrize("name", FLOATS)
    def test_floats(self, name: str, order: int, seed: int) -> None:
        outcome = exercise(name, order, seed)
        assert outcome.error == ""
        np.testing.assert_array_equal(outcome.output, FLOATS[name])

    @pytest.mark.parametrize("name", INTEGERS)
    def test_integers(self, name: str, order: int, seed: int) -> None:
        outcome = exercise(name, order, seed)
        assert outcome.error == ""
        np.testing.assert_array_equal(outcome.integers, INTEGERS[name])

    def test_atomics(self, order: int, seed: int) -> None:
        outcome = exercise("count_atomically", order, seed)
        assert outcome.error == ""
        # Threads of a block that are 0, 1 or 2 modulo 3, and the highest of each block.
        assert outcome.integers[:5].tolist() == [43 * BLOCKS, 43 * BLOCKS, 42 * BLOCKS, 127 * BLOCKS, 255]
        assert outcome.output[0] == COUNT


@pytest.mark.parametrize(("order", "seed"), ORDERS)
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named(name: str, order: int, seed: int) -> None:
    error = exercise(name, order, seed).error
    assert re.fullmatch(rf"{name}, block \(\d,0\): ({FAULTS[name]}).*", error)
    # Threads were left in the middle; the next launch starts afresh.
    np.testing.assert_array_equal(exercise("reduce_block", order, seed).output, FLOATS["reduce_block"])


@pytest.mark.slow  # 2 s: it must be clear that the block does nothing else
def test_endless_kernel_is_ended() -> None:
    assert re.match(r"endless, block \(0,0\): does not end: thread \d+ at __syncthreads_or", exercise("endless").error)


class TestSilentFaults:
    """Faults that no rule of the scheduler breaks show in the numbers."""

    def test_missing_barrier_reads_poison(self) -> None:
        assert np.isnan(exercise("missing_barrier", FORWARD).output).any()
        assert np.isnan(exercise("missing_barrier", REVERSE).output).any()

    def test_missing_second_barrier_depends_on_the_order(self) -> None:
        results = {exercise("missing_second_barrier", *order).output.tobytes() for order in ORDERS}
        assert len(results) > 1

    def test_uninitialised_shared_memory_is_poisoned(self) -> None:
        output = exercise("uninitialised_shared").output
        assert np.isnan(output[1::2]).all()
        np.testing.assert_array_equal(output[::2], INPUT[::2])

    def test_shared_memory_does_not_outlive_its_block(self) -> None:
        output = exercise("shared_of_last_block").output
        assert (output[:BLOCK] == 1).all()
        assert np.isnan(output[BLOCK:]).all()


def run_sanitized(sanitizer: build.Sanitizer, name: str) -> subprocess.CompletedProcess[str]:
    return build.run_program([str(build.build_exercises(sanitizer=sanitizer)), name])


class TestSanitizers:
    """Each runs an exercise in the three orders."""

    @pytest.mark.parametrize("sanitizer", ["address", "thread"])
    @pytest.mark.parametrize("name", RIGHT)
    def test_right_kernel_is_clean(self, sanitizer: build.Sanitizer, name: str) -> None:
        done = run_sanitized(sanitizer, name)
        assert (done.returncode, done.stderr.strip()) == (0, "")

    @pytest.mark.parametrize(
        ("name", "report"),
        [
            ("past_end_of_shared", "global-buffer-overflow"),
            ("past_end_of_buffer", "heap-buffer-overflow"),
            ("past_end_of_local", "index 4 out of bounds for type 'float \\[4\\]'"),
            ("shift_too_far", "shift exponent 32 is too large"),
        ],
    )
    def test_address(self, name: str, report: str) -> None:
        done = run_sanitized("address", name)
        assert done.returncode != 0
        assert re.search(report, done.stderr)
        assert "exercises.cu" in done.stderr

    @pytest.mark.parametrize("name", ["missing_barrier", "missing_second_barrier", "vote_for_barrier"])
    def test_race(self, name: str) -> None:
        done = run_sanitized("thread", name)
        assert done.returncode != 0
        assert "ThreadSanitizer: data race" in done.stderr
        assert name in done.stderr

    @pytest.mark.parametrize("sanitizer", ["address", "thread"])
    def test_fault_is_named(self, sanitizer: build.Sanitizer) -> None:
        done = run_sanitized(sanitizer, "barrier_for_some")
        assert done.returncode == 1
        assert re.fullmatch(rf"barrier_for_some, block \(0,0\): {FAULTS['barrier_for_some']}\n", done.stderr)


HEADER = '#include "emulation/cuda_emulation.h"\n'
DEFINITIONS = (f"-I{build.SOURCES}",)


def build_file(source: Path) -> Path:
    return build.build([build.Unit(source, ())], sanitizer="none", library=True, definitions=DEFINITIONS)


def write_text(folder: Path, text: str) -> Path:
    source = folder / "kernel.cu"
    source.write_text(HEADER + text)
    return source


class TestBuild:
    @pytest.fixture(autouse=True)
    def _empty_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build, "CACHE", tmp_path / "cache")

    def test_shared_memory_out_of_reach_is_refused(self, tmp_path: Path) -> None:
        text = "template <int n> float* rows() { __shared__ float inner[n]; return inner; }\n"
        text += "template float* rows<4>();\n"
        with pytest.raises(RuntimeError, match=r"not in the section of shared memory .*inner"):
            build_file(write_text(tmp_path, text))

    def test_error_of_the_compiler_is_shown(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="no_such_name"):
            build_file(write_text(tmp_path, "int x = no_such_name;\n"))
        assert list(build.CACHE.glob("*.so")) == []

    def test_builds_at_once_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        text = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }\n'
        source = write_text(tmp_path, text)
        with ThreadPoolExecutor(3) as pool:
            paths = list(pool.map(build_file, [source] * 3))
        assert len(set(paths)) == 1
        assert ctypes.CDLL(str(paths[0])).answer() == 42
        assert {path.suffix for path in build.CACHE.iterdir()} == {".o", ".so"}
        assert len(list(build.CACHE.iterdir())) == 2
