"""The CUDA kernels compile for every architecture that is served, and what was compiled is found again."""

from __future__ import annotations

import multiprocessing
import shutil
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from rasterizer import cuda_compiler, kernel_cache, nvrtc
from rasterizer.backend import BackendError
from rasterizer.cuda_abi import Stage
from rasterizer.cuda_compiler import (
    PREBUILT_VARIABLE,
    Target,
    choose_target,
    compile_image,
    compile_kernels,
    read_sources,
)
from rasterizer.kernel_cache import CACHE_VARIABLE, cache_folder, read_image
from rasterizer.nvrtc import Nvrtc, NvrtcError, load_nvrtc
from tests.rasterizer.requirements import skip_without

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
EM_CUDA = 190
KERNEL = (
    '#include "inner.h"\n#include "../outer.h"\nextern "C" __global__ void k(float* x) {{ *x = {number} + OUTER; }}\n'
)


@pytest.fixture
def compiler() -> Nvrtc:
    try:
        return load_nvrtc()
    except NvrtcError as error:
        skip_without("nvrtc", str(error))


def forget() -> None:
    """What a new process does not know."""
    cuda_compiler._images.clear()
    cuda_compiler._variant.cache_clear()
    read_sources.cache_clear()
    kernel_cache._warn_unwritable.cache_clear()


def write_sources(root: Path, number: int = 1) -> None:
    (root / "cuda").mkdir(parents=True, exist_ok=True)
    (root / "cuda" / "kernels.cu").write_text(KERNEL.format(number=number))
    (root / "cuda" / "inner.h").write_text('#pragma once\n#include "../outer.h"\n')
    (root / "outer.h").write_text("#pragma once\nconstexpr float OUTER = RZ_CHANNELS + RZ_DEPTH;\n")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Nvrtc) -> Iterator[Path]:
    """An empty cache folder, and a kernel that compiles in no time."""
    write_sources(tmp_path / "csrc")
    monkeypatch.setattr(cuda_compiler, "ROOT", tmp_path / "csrc")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(PREBUILT_VARIABLE, raising=False)
    forget()
    yield tmp_path / "cache"
    forget()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the targets that were really compiled."""
    targets = []

    def compile_counted(compiler: Nvrtc, target: Target, channels: int, depth: bool) -> tuple[bytes, str]:
        targets.append(target.option)
        return compile_image(compiler, target, channels, depth)

    monkeypatch.setattr(cuda_compiler, "compile_image", compile_counted)
    return targets


def lose_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "candidate_libraries", lambda: iter(()))
    monkeypatch.setattr(cuda_compiler, "load_nvrtc", load_nvrtc.__wrapped__)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile(compiler: Nvrtc, architecture: int):
    depth = architecture % 20 == 0  # each of both for some
    image, log = compile_image(compiler, Target(architecture, ptx=False), 3, depth)
    assert log == ""
    assert image[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", image, 18) == (EM_CUDA,)
    for stage in Stage:
        assert f"\0.text.{stage.kernel}\0".encode() in image


@pytest.mark.parametrize(("channels", "depth"), [(1, False), (5, True), (32, True)])
def test_kernels_compile_for_other_channels(compiler: Nvrtc, channels: int, depth: bool):
    _, log = compile_image(compiler, Target(90, ptx=False), channels, depth)
    assert log == ""


def test_kernels_compile_to_ptx(compiler: Nvrtc):
    image, log = compile_image(compiler, Target(90, ptx=True), 3, False)
    assert log == ""
    for stage in Stage:
        assert f".entry {stage.kernel}(".encode() in image


def test_sources_are_complete_without_the_emulation():
    sources = read_sources()
    assert all(name.startswith("rasterizer/") for name in sources.headers)
    assert {"rasterizer/math.h", "rasterizer/config.h", "rasterizer/cuda/params.h"} <= set(sources.headers)
    assert not any("emulation/" in name for name in sources.headers)


def test_missing_source_is_named(cache: Path):
    (cuda_compiler.ROOT / "outer.h").unlink()
    with pytest.raises(BackendError, match=r"outer\.h.*reinstall the package"):
        compile_kernels((8, 0), 3, False)


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((9, 0), (75, 80, 90, 100), Target(90, ptx=False)),
        ((8, 7), (75, 80, 86, 90), Target(86, ptx=False)),  # cubins serve later minor versions
        ((12, 1), (80, 90, 100, 120), Target(120, ptx=False)),
        ((12, 0), (75, 80, 90), Target(90, ptx=True)),  # newer than the compiler: the driver goes on from PTX
        ((13, 0), (75, 120, 121), Target(121, ptx=True)),
        ((7, 5), (75, 80), Target(75, ptx=False)),
    ],
)
def test_target(capability: tuple[int, int], architectures: tuple[int, ...], expected: Target):
    assert choose_target(capability, architectures) == expected
    assert expected.fits(capability)


def test_target_of_an_old_device():
    with pytest.raises(BackendError, match=r"capability 6\.1, .* compiles for 7\.5 and later; install a torch"):
        choose_target((6, 1), (75, 80))


def test_what_a_device_runs():
    assert Target(80, ptx=False).fits((8, 9))
    assert not Target(86, ptx=False).fits((8, 0))
    assert not Target(80, ptx=False).fits((9, 0))
    assert Target(80, ptx=True).fits((9, 0))
    assert not Target(100, ptx=True).fits((9, 0))


@pytest.mark.parametrize("channels", [0, 33])
def test_number_of_channels(channels: int):
    with pytest.raises(BackendError, match=f"1 to 32 channels, not {channels}"):
        compile_kernels((9, 0), channels, False)


def test_second_process_compiles_nothing(cache: Path, compiled: list[str]):
    image = compile_kernels((9, 0), 3, False)
    assert compile_kernels((9, 0), 3, False) is image
    forget()
    assert compile_kernels((9, 0), 3, False) == image
    assert compiled == ["sm_90"]
    assert read_image(only_file(cache)) == image


def test_every_variant_has_its_file(cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch):
    images = {compile_kernels((9, 0), 3, False), compile_kernels((9, 0), 3, True), compile_kernels((9, 0), 4, True)}
    images.add(compile_kernels((8, 0), 3, False))
    assert len(images) == 4
    assert compiled == ["sm_90", "sm_90", "sm_90", "sm_80"]
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("change", ["source", "header", "options", "abi", "compiler"])
def test_what_the_kernels_depend_on(
    cache: Path, compiled: list[str], compiler: Nvrtc, monkeypatch: pytest.MonkeyPatch, change: str
):
    compile_kernels((9, 0), 3, False)
    forget()
    if change == "source":
        write_sources(cuda_compiler.ROOT, number=2)
    elif change == "header":
        (cuda_compiler.ROOT / "outer.h").write_text("#pragma once\nconstexpr float OUTER = 7;\n")
    elif change == "options":
        monkeypatch.setattr(cuda_compiler, "OPTIONS", ("--std=c++17",))
    elif change == "abi":
        monkeypatch.setattr(cuda_compiler, "ABI_VERSION", 1000)
    else:
        other = Nvrtc(compiler.path, compiler.library, (99, 0), compiler.architectures)
        monkeypatch.setattr(cuda_compiler, "load_nvrtc", lambda: other)
    compile_kernels((9, 0), 3, False)
    assert len(compiled) == 2
    assert len(list(cache.iterdir())) == 2


def test_cache_serves_without_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch):
    image = compile_kernels((9, 0), 3, False)
    lose_compiler(monkeypatch)
    forget()
    assert compile_kernels((9, 0), 3, False) == image
    with pytest.raises(NvrtcError, match="pip install nvidia-cuda-nvrtc"):
        compile_kernels((9, 0), 4, False)
    with pytest.raises(NvrtcError, match="pip install nvidia-cuda-nvrtc"):
        compile_kernels((8, 0), 3, False)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "renamed"])
def test_damaged_file_is_compiled_again(cache: Path, compiled: list[str], damage: str):
    image = compile_kernels((9, 0), 3, False)
    path = only_file(cache)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-100] ^= 1
    elif damage == "cut":
        del content[-1:]
    elif damage == "empty":
        content.clear()
    path.write_bytes(content)
    if damage == "renamed":
        compile_kernels((9, 0), 4, False)
        (other,) = set(cache.iterdir()) - {path}
        shutil.copy(other, path)
    forget()
    before = len(compiled)
    assert compile_kernels((9, 0), 3, False) == image
    assert len(compiled) == before + 1
    assert read_image(path) == image


def compile_with_warnings() -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for channels in (3, 4):
            assert compile_kernels((9, 0), channels, False)[:4] == b"\x7fELF"
    return caught


def test_folder_that_cannot_be_made(cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch):
    (cache.parent / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(cache.parent / "file" / "cache"))
    (warning,) = compile_with_warnings()
    assert "compiled again at every start: set RASTERIZER_CACHE" in str(warning.message)
    assert len(compiled) == 2


def test_full_disk(cache: Path, compiled: list[str]):
    resource = pytest.importorskip("resource", reason="sets a limit on the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a write beyond it fails half way
    try:
        (warning,) = compile_with_warnings()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"cannot be kept in {cache} (" in str(warning.message)
    assert list(cache.iterdir()) == []
    forget()
    assert compile_with_warnings() == []
    assert len(list(cache.iterdir())) == 2


def test_no_home(cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda_compiler, "cache_folder", lambda: None)
    assert compile_with_warnings() == []
    assert len(compiled) == 2


def test_default_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/somewhere/.cache/rasterizer")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/rasterizer")
    monkeypatch.setenv(CACHE_VARIABLE, "~/chosen")
    assert cache_folder() == Path("/somewhere/chosen")


def test_prebuilt_folder(cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch):
    image = compile_kernels((8, 0), 3, False)
    prebuilt = cache.rename(cache.parent / "prebuilt")
    monkeypatch.setenv(PREBUILT_VARIABLE, str(prebuilt))
    lose_compiler(monkeypatch)
    forget()
    assert compile_kernels((8, 0), 3, False) == image
    assert compile_kernels((8, 6), 3, False) == image
    assert not cache.exists()
    with pytest.raises(NvrtcError, match=rf"pip install.*\(nor has {prebuilt} these kernels\)"):
        compile_kernels((9, 0), 3, False)
    assert compiled == ["sm_80"]


def test_best_prebuilt_image_is_taken(cache: Path, monkeypatch: pytest.MonkeyPatch):
    compile_kernels((8, 0), 3, False)
    image = compile_kernels((8, 6), 3, False)
    monkeypatch.setenv(PREBUILT_VARIABLE, str(cache))
    lose_compiler(monkeypatch)
    forget()
    assert compile_kernels((8, 9), 3, False) == image


def test_prebuilt_kernels_of_other_sources_are_not_taken(
    cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    compile_kernels((8, 0), 3, False)
    prebuilt = cache.rename(cache.parent / "prebuilt")
    monkeypatch.setenv(PREBUILT_VARIABLE, str(prebuilt))
    write_sources(cuda_compiler.ROOT, number=2)
    forget()
    compile_kernels((8, 0), 3, False)
    assert len(compiled) == 2


def test_damaged_prebuilt_file_is_named(cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch):
    image = compile_kernels((8, 0), 3, False)
    prebuilt = cache.rename(cache.parent / "prebuilt")
    path = only_file(prebuilt)
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setenv(PREBUILT_VARIABLE, str(prebuilt))
    forget()
    with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged and was passed over"):
        assert compile_kernels((8, 0), 3, False) == image
    assert len(compiled) == 2


def test_prebuilt_folder_must_exist(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(PREBUILT_VARIABLE, str(cache / "nothing"))
    with pytest.raises(BackendError, match=r"RASTERIZER_CUBINS names .*nothing, which is not a folder"):
        compile_kernels((8, 0), 3, False)


def test_newer_device_gets_ptx(cache: Path, compiled: list[str], compiler: Nvrtc):
    image = compile_kernels((99, 0), 3, False)
    assert f".target sm_{max(compiler.architectures)}".encode() in image
    assert compiled == [f"compute_{max(compiler.architectures)}"]


def test_threads_compile_once(cache: Path, compiled: list[str]):
    threads = [threading.Thread(target=compile_kernels, args=((9, 0), 3, False)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiled == ["sm_90"]


def compile_in_process(root: Path, start: object, results: object) -> None:
    cuda_compiler.ROOT = root
    start.wait()  # type: ignore[attr-defined]
    results.put(compile_kernels((9, 0), 3, False))  # type: ignore[attr-defined]


def test_processes_share_the_folder(cache: Path):
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.Queue()
    arguments = (cuda_compiler.ROOT, start, results)
    processes = [context.Process(target=compile_in_process, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    images = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(images) == 1
    assert read_image(only_file(cache)) in images
