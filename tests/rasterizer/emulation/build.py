"""Compiles the CUDA kernels and their launcher with g++ against the emulation (``rasterizer/csrc/emulation``).

Everything built is kept under pytest's cache folder by the hash of what it is built from; processes that build the
same thing at once do not disturb each other. A library is loaded like the real launcher; sanitized code cannot live in
a plain Python, so it becomes a program that replays recorded launches (``recording.py``).
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Sanitizer = Literal["none", "address", "thread"]

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "rasterizer" / "csrc"
SCHEDULER = ("scheduler.cpp", "meetings.cpp", "faults.cpp")
CACHE = HERE.parents[2] / ".pytest_cache" / "d" / "emulation"
UNUSED_SECONDS = 7 * 24 * 3600  # then a file is deleted

# No contraction: a product and a sum are rounded as the kernels write them. Kernels read float4 from float arrays.
FLAGS = ("-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-strict-aliasing")
WARNINGS = ("-Wall", "-Wextra", "-Wno-unknown-pragmas")
INSTRUMENTATION: dict[Sanitizer, tuple[str, ...]] = {
    "none": ("-O2",),
    # Without the option GCC gives variables of a named section, so all shared memory, no red zones.
    "address": (
        "-O1",
        "-g1",
        "-fsanitize=address,undefined",
        "-fsanitize-sections=rz_shared",
        "-fno-sanitize-recover=all",
    ),
    "thread": ("-O1", "-g1", "-fsanitize=thread"),
}
DEFINITIONS: dict[Sanitizer, tuple[str, ...]] = {
    "none": (),
    "address": ("-DRZ_EMULATION_ASAN",),
    "thread": ("-DRZ_EMULATION_TSAN",),
}


@dataclass(frozen=True)
class Unit:
    """One file to compile: `depends` are the globs of all it includes, relative to the file's folder."""

    source: Path
    depends: tuple[str, ...]
    instrumented: bool = True


def build_emulation(channels: int, depth: bool, *, sources: Path | None = None) -> Path:
    """The launcher's library with the kernels of `sources` (a copy of ``rasterizer/csrc``) running on the CPU."""
    units = kernel_units(sources or SOURCES)
    return build(units, sanitizer="none", library=True, definitions=kernel_definitions(channels, depth))


def build_replay(channels: int, depth: bool, *, sanitizer: Sanitizer = "none", sources: Path | None = None) -> Path:
    """The same as a program that replays a recording: ``replay IN OUT ORDER SEED`` (``replay.cpp``)."""
    folder = sources or SOURCES
    headers = (os.path.relpath(folder / "cuda", HERE) + "/*.h",)
    units = [*kernel_units(folder), Unit(HERE / "replay.cpp", headers)]
    definitions = (*kernel_definitions(channels, depth), f"-I{folder}")
    return build(units, sanitizer=sanitizer, library=False, definitions=definitions)


def build_exercises(*, sanitizer: Sanitizer = "none") -> Path:
    """The emulation's own test kernels (``exercises.cu``): a library, or sanitized a program ``exercises NAME``."""
    emulation = os.path.relpath(SOURCES / "emulation", HERE) + "/*.h"
    units = [Unit(HERE / "exercises.cu", (emulation,)), *scheduler_units()]
    return build(units, sanitizer=sanitizer, library=sanitizer == "none", definitions=(f"-I{SOURCES}",))


def kernel_definitions(channels: int, depth: bool) -> tuple[str, ...]:
    return ("-DRZ_EMULATION", f"-DRZ_CHANNELS={channels}", f"-DRZ_DEPTH={int(depth)}")


def scheduler_units() -> list[Unit]:
    return [Unit(SOURCES / "emulation" / name, ("*.h",), instrumented=False) for name in SCHEDULER]


def kernel_units(sources: Path) -> list[Unit]:
    cuda = sources / "cuda"
    return [
        Unit(cuda / "kernels.cu", ("*.h", "*.cuh", "*.cu", "../*.h", "../emulation/*.h")),
        Unit(cuda / "launch.cpp", ("*.h", "../*.h")),
        Unit(sources / "emulation" / "launch_emulation.cpp", ("*.h", "../cuda/*.h")),
        *scheduler_units(),
    ]


def build(units: list[Unit], *, sanitizer: Sanitizer, library: bool, definitions: tuple[str, ...]) -> Path:
    """Compiles and links what is not in the cache; raises RuntimeError with the compiler's words."""
    objects = [compile_unit(unit, sanitizer, definitions) for unit in units]
    link = (*INSTRUMENTATION[sanitizer], *(("-shared",) if library else ()), "-pthread")
    output = CACHE / (digest([*link, *(path.name for path in objects)]) + (".so" if library else ""))
    produce(output, [compiler(), *link, *map(str, objects)])
    return output


def compile_unit(unit: Unit, sanitizer: Sanitizer, definitions: tuple[str, ...]) -> Path:
    flags = [*FLAGS, *WARNINGS, *machine_flags(), *DEFINITIONS[sanitizer]]
    if unit.source.name not in SCHEDULER:
        flags += definitions
    flags += INSTRUMENTATION[sanitizer if unit.instrumented else "none"]
    texts = sorted({path for glob in unit.depends for path in unit.source.parent.glob(glob)} | {unit.source})
    contents = [text for path in texts for text in (path.name, path.read_text())]
    portable = [flag for flag in flags if not flag.startswith("-I")]
    output = CACHE / (digest([compiler_version(), *portable, *contents]) + ".o")
    produce(output, [compiler(), *flags, "-c", "-x", "c++", str(unit.source)])
    if unit.source.suffix == ".cu" and sanitizer == "none":
        check_shared_memory(output)
    return output


def check_shared_memory(path: Path) -> None:
    """Variables outside the section of shared memory are not poisoned: GCC ignores the section in templates."""
    table = subprocess.run(["nm", "-C", "-f", "sysv", str(path)], check=True, capture_output=True, text=True).stdout
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if line.count("|") == 6]
    strays = [row[0] for row in rows if row[3] == "OBJECT" and row[6].startswith(".bss")]
    if strays:
        raise RuntimeError(f"not in the section of shared memory (declared in a template?): {', '.join(strays)}")


def produce(output: Path, command: list[str]) -> None:
    """Runs the compiler, unless the file is there, into a temporary name and renames: others see all or nothing."""
    if output.exists():
        output.touch()
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    for path in CACHE.iterdir():
        if time.time() - path.stat().st_mtime > UNUSED_SECONDS:
            path.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=CACHE, suffix=output.suffix)
    os.close(handle)
    try:
        done = subprocess.run([*command, "-o", name], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        Path(name).chmod(0o755)
        os.replace(name, output)
    finally:
        Path(name).unlink(missing_ok=True)


def compiler() -> str:
    """$CXX or g++, which must be GCC."""
    path = shutil.which(os.environ.get("CXX", "g++"))
    if path is None:
        raise RuntimeError("the CUDA emulation needs g++ 11 or newer: install it, or name it in CXX")
    return path


@functools.cache
def compiler_version() -> str:
    return subprocess.run([compiler(), "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]


def machine_flags() -> tuple[str, ...]:
    """Fused multiply-add as an instruction where the processor has it: the same bits as the library's, faster."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and cpuinfo.exists() and " fma " in cpuinfo.read_text():
        return ("-mfma",)
    return ()


def run_program(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a program that was built here, sanitized or not."""
    environment = {
        **os.environ,
        # The stacks of threads that were left at an error hold its text.
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "atexit_sleep_ms=0 halt_on_error=1",
    }
    command = [*fixed_addresses(), *command]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)


@functools.cache
def fixed_addresses() -> tuple[str, ...]:
    """How to start a program without random addresses: sanitizers of GCC before 14 cannot do with 32 random bits."""
    command = ("setarch", "-R")
    if (
        shutil.which(command[0])
        and subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
    ):
        return command
    return ()


def digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
