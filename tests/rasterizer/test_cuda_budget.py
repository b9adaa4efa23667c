"""Registers, spills and shared memory of the CUDA kernels, as nvcc's assembler reports them, within their budget.

They decide how many threads a multiprocessor holds; more of either is a loss of speed that no CPU test would show.
The budget (``csrc/cuda/register_budget.json``) is what nvcc 13.0 needs, with a little room for other versions.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from rasterizer.cuda_abi import Stage
from rasterizer.cuda_compiler import OPTIONS, ROOT
from tests.rasterizer.requirements import skip_without

BUDGET = json.loads((ROOT / "cuda" / "register_budget.json").read_text())
VARIANTS = {"c3": (3, False), "c3-depth": (3, True)}
MULTIPROCESSOR_REGISTERS = 65536


class Use(NamedTuple):
    registers: int
    shared_bytes: int
    spill_bytes: int


def find_nvcc() -> str:
    named = [os.path.join(os.environ[name], "bin") for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    folders = [*named, *os.environ.get("PATH", "").split(os.pathsep), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(folders)) or skip_without(
        "nvcc", "there is no nvcc on this machine"
    )


def parse_report(text: str) -> dict[tuple[str, str], Use]:
    """What ``ptxas -v`` says of each kernel and architecture; functions that kernels call count for the kernel."""
    found = {}
    for part in re.split(r"Compiling entry function ", text)[1:]:
        name, architecture = re.match(r"'(\w+)' for '(\w+)'", part).groups()  # type: ignore[union-attr]
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", part)
        assert registers is not None, part
        assert spills, part
        found[name, architecture] = Use(int(registers[1]), int(shared[1]) if shared else 0, sum(map(int, spills)))
    return found


def measure(folder: Path, channels: int, depth: bool) -> dict[tuple[str, str], Use]:
    architectures = [f"-gencode=arch=compute_{name[3:]},code={name}" for name in BUDGET["architectures"]]
    command = [
        find_nvcc(), *OPTIONS, *architectures, f"-DRZ_CHANNELS={channels}", f"-DRZ_DEPTH={int(depth)}",
        "-Xptxas=-v", "-fatbin", str(ROOT / "cuda" / "kernels.cu"), "-o", str(folder / "kernels.fatbin"),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr, result.stderr
    return parse_report(result.stderr)


def test_report_is_understood():
    text = """ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 151 registers, used 1 barriers, 4608 bytes smem, 752 bytes cmem[0]
ptxas info    : Function properties for helper
    0 bytes stack frame, 2 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers, 752 bytes cmem[0]"""
    assert parse_report(text) == {("one", "sm_80"): Use(151, 4608, 18), ("two", "sm_90"): Use(20, 0, 0)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels_keep_their_budget(tmp_path: Path, variant: str):
    found = measure(tmp_path, *VARIANTS[variant])
    expected = {(stage.kernel, architecture) for stage in Stage for architecture in BUDGET["architectures"]}
    assert set(found) == expected
    over = []
    for (kernel, architecture), use in sorted(found.items()):
        limit = Use(**BUDGET["limits"][variant][architecture][kernel])
        if any(used > allowed for used, allowed in zip(use, limit)):
            over.append(f"{kernel} on {architecture}: {use}, allowed {limit}")
    assert over == [], "\n".join(over)


def test_budget_fills_a_multiprocessor():
    """No limit that would leave the kernels of the two blending stages fewer than 16 warps on a multiprocessor."""
    for variant in VARIANTS:
        for limits in BUDGET["limits"][variant].values():
            assert set(limits) == {stage.kernel for stage in Stage}
            for kernel in ("rz_blend", "rz_blend_backward"):
                assert MULTIPROCESSOR_REGISTERS // (limits[kernel]["registers"] * 32) >= 16
            assert all(limit["spill_bytes"] == 0 for limit in limits.values())


def test_absent_compiler_is_never_passed_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.delenv("RASTERIZER_REQUIRE_NVCC", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no nvcc"):
        find_nvcc()
    monkeypatch.setenv("RASTERIZER_REQUIRE_NVCC", "1")
    with pytest.raises(pytest.fail.Exception, match="RASTERIZER_REQUIRE_NVCC=1, but there is no nvcc"):
        find_nvcc()
