"""Finding NVRTC and calling it: which one is taken, and the words when there is none or a source is wrong."""

from __future__ import annotations

import ctypes.util
from pathlib import Path

import pytest
import torch

from rasterizer import nvrtc
from rasterizer.nvrtc import NvrtcError, candidate_libraries, library_version, load_nvrtc
from tests.rasterizer.requirements import skip_without


@pytest.fixture
def compiler() -> nvrtc.Nvrtc:
    try:
        return load_nvrtc()
    except NvrtcError as error:
        skip_without("nvrtc", str(error))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only folder of packages, and only toolkit, is empty."""
    monkeypatch.setattr(nvrtc, "package_folders", lambda: [tmp_path / "packages"])
    monkeypatch.setattr(nvrtc, "toolkit_folders", lambda: [tmp_path / "toolkit"])
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    load_nvrtc.cache_clear()
    monkeypatch.setattr(nvrtc, "load_nvrtc", load_nvrtc)
    yield tmp_path  # type: ignore[misc]
    load_nvrtc.cache_clear()


def place(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no library")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("libnvrtc.so.13", (13, 0)),
        ("libnvrtc.so.12", (12, 0)),
        ("libnvrtc.so.12.8.93", (12, 8)),
        ("libnvrtc-d833c4f3.so.11.2", (11, 2)),
        ("nvrtc64_120_0.dll", (12, 0)),
        ("nvrtc64_112_0.dll", (11, 2)),
        ("libnvrtc.so", (0, 0)),
    ],
)
def test_version_in_the_name(name: str, version: tuple[int, int]):
    assert library_version(Path(name)) == version


@pytest.mark.parametrize(
    ("torchs", "first"), [("12.8", "libnvrtc.so.12"), ("13.0", "libnvrtc.so.13"), (None, "libnvrtc.so.13")]
)
def test_generation_of_torch_comes_first(
    machine: Path, monkeypatch: pytest.MonkeyPatch, torchs: str | None, first: str
):
    monkeypatch.setattr(torch.version, "cuda", torchs)
    packages = machine / "packages" / "nvidia"
    place(
        packages / "cu13" / "lib" / "libnvrtc.so.13",
        packages / "cu13" / "lib" / "libnvrtc-builtins.so.13.0",
        packages / "cuda_nvrtc" / "lib" / "libnvrtc.so.12",
        packages / "cuda_nvrtc" / "lib" / "libnvrtc-builtins.alt.so.12.8",
        machine / "toolkit" / "lib64" / "libnvrtc.so.11.2",
    )
    names = [path.name for path in candidate_libraries()]
    assert names[0] == first
    assert sorted(names) == ["libnvrtc.so.11.2", "libnvrtc.so.12", "libnvrtc.so.13"]


@pytest.mark.parametrize(
    ("torchs", "package"),
    [("12.8", "nvidia-cuda-nvrtc-cu12`"), ("13.0", "nvidia-cuda-nvrtc`"), (None, "nvidia-cuda-nvrtc`")],
)
def test_missing_compiler_names_its_package(
    machine: Path, monkeypatch: pytest.MonkeyPatch, torchs: str | None, package: str
):
    monkeypatch.setattr(torch.version, "cuda", torchs)
    with pytest.raises(NvrtcError, match=f"install it with `pip install {package}"):
        load_nvrtc()


def test_broken_compiler_is_named(machine: Path):
    broken = machine / "packages" / "nvidia" / "cu13" / "lib" / "libnvrtc.so.13"
    place(broken)
    with pytest.raises(NvrtcError, match=f"pip install .*these do not load: {broken}"):
        load_nvrtc()


def test_broken_compiler_is_passed_over(compiler: nvrtc.Nvrtc, machine: Path):
    good = machine / "toolkit" / "lib64" / "libnvrtc.so.12"
    place(machine / "packages" / "nvidia" / "cu13" / "lib" / "libnvrtc.so.14", good)
    good.unlink()
    good.symlink_to(compiler.path)
    assert load_nvrtc().path == good
    assert load_nvrtc() is load_nvrtc()


def test_compiler_knows_its_version_and_architectures(compiler: nvrtc.Nvrtc):
    assert compiler.version >= (11, 2)
    assert {80, 86, 89, 90} <= set(compiler.architectures)


def test_headers_come_by_name(compiler: nvrtc.Nvrtc):
    headers = {
        "a/one.h": '#pragma once\n#include "b/two.h"\n',
        "b/two.h": '#pragma once\n#include "a/one.h"\n#define TWO 2\n',
    }
    source = '#include "a/one.h"\n#include "b/two.h"\nextern "C" __global__ void k(int* x) { *x = TWO; }'
    image, log = compiler.compile(source, "main.cu", headers, ["--gpu-architecture=sm_80"])
    assert image[:4] == b"\x7fELF"
    assert log == ""
    ptx, _ = compiler.compile(source, "main.cu", headers, ["--gpu-architecture=compute_80"], ptx=True)
    assert b".target sm_80" in ptx
    assert ptx[-1:] == b"\0"


def test_source_errors_are_shown(compiler: nvrtc.Nvrtc):
    with pytest.raises(
        NvrtcError, match=r"could not compile main.cu \(--gpu-architecture=sm_80\):\n(.*\n)*.*wrong_word"
    ):
        compiler.compile("wrong_word", "main.cu", {}, ["--gpu-architecture=sm_80"])


def test_wrong_calls_are_shown(compiler: nvrtc.Nvrtc):
    with pytest.raises(NvrtcError, match="nosuchoption"):
        compiler.compile("", "main.cu", {}, ["--nosuchoption"])
