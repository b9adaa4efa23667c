"""Some hundred random calls in every test run; ``fuzz.py`` says what must hold and runs many more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rasterizer import autograd, backend
from rasterizer.autograd import rasterize_cpu
from tests.rasterizer import fuzz

GROUPS, GROUP_SIZE = 6, 50


@pytest.fixture(autouse=True)
def restored_state() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    backend.select_isa(os.environ.get(backend.ISA_VARIABLE, ""))
    autograd.pool.clear()


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_calls(group: int):
    cases = {seed: fuzz.make_case(seed) for seed in range(group * GROUP_SIZE, (group + 1) * GROUP_SIZE)}
    assert any(case.tame for case in cases.values())
    for seed, case in cases.items():
        try:
            fuzz.check_case(case)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_unwritten_memory_would_be_found(monkeypatch: pytest.MonkeyPatch):
    def forget(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        colors, alphas, depths, info = rasterize_cpu(*args, **kwargs)
        return (
            torch.where(torch.arange(colors.numel()).view(colors.shape) == 3, torch.empty(()), colors),
            alphas,
            depths,
            info,
        )

    case = next(case for case in map(fuzz.make_case, range(100)) if case.tame)
    monkeypatch.setattr(fuzz, "rasterize_cpu", forget)
    with pytest.raises(AssertionError, match="memory held before"):
        fuzz.check_case(case)


@pytest.mark.slow
def test_a_crash_and_a_hang_cost_one_seed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fuzz, "SECONDS_PER_CASE", 2.0)
    monkeypatch.setattr(fuzz, "work", misbehave)
    assert fuzz.run_many(10, 4) == [(10, "failure", "bad"), (11, "hang", ""), (12, "crash", "exit code -6")]


def misbehave(seeds: range, current: Any, failures: Any) -> None:
    """Fails at seed 10, hangs at 11, crashes at 12."""
    for seed in seeds:
        current.value = seed
        if seed == 10:
            failures.put((seed, "failure", "bad"))
        elif seed == 11:
            while True:
                pass
        elif seed == 12:
            os.abort()
    current.value = fuzz.DONE
