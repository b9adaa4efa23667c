"""NVIDIA's run-time compiler (NVRTC) through ctypes: found where torch's CUDA wheels put it, called without headers
or tools of a CUDA toolkit. It needs neither a GPU nor a driver.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rasterizer.backend import BackendError

# Below a folder of Python packages. NVIDIA's wheels: "nvidia/cu13" since CUDA 13, "nvidia/cuda_nvrtc" before; torch's
# wheels of CUDA 11, and all of those for Windows, carry the library themselves.
PACKAGE_PATTERNS = (
    "nvidia/cu[0-9]*/lib/libnvrtc.so*",
    "nvidia/cuda_nvrtc/lib/libnvrtc.so*",
    "torch/lib/libnvrtc*.so*",
    "nvidia/cu[0-9]*/bin/x86_64/nvrtc64_*.dll",
    "nvidia/cuda_nvrtc/bin/nvrtc64_*.dll",
    "torch/lib/nvrtc64_*.dll",
)
# Below the folder of a CUDA toolkit or of a conda environment.
TOOLKIT_PATTERNS = ("lib64/libnvrtc.so*", "lib/libnvrtc.so*", "bin/nvrtc64_*.dll", "Library/bin/nvrtc64_*.dll")
LOG_CHARACTERS = 4000


class NvrtcError(BackendError):
    """NVRTC is missing, or it could not compile."""


def package_folders() -> list[Path]:
    """Folders of Python packages that may hold NVRTC: torch's own first, then the rest of ``sys.path``."""
    spec = importlib.util.find_spec("torch")
    torchs = [Path(spec.origin).parents[1]] if spec is not None and spec.origin else []
    return list(dict.fromkeys([*torchs, *(Path(folder) for folder in sys.path if folder)]))


def toolkit_folders() -> list[Path]:
    """Folders of an installed CUDA toolkit or conda environment that may hold NVRTC."""
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX") if os.environ.get(name)]
    return [Path(folder) for folder in [*named, "/usr/local/cuda", sys.prefix]]


def library_version(path: Path) -> tuple[int, int]:
    """CUDA version in the name of an NVRTC library: libnvrtc.so.13, libnvrtc-1a2b.so.11.2, nvrtc64_120_0.dll."""
    if match := re.match(r"nvrtc64_(\d+)(\d)_", path.name):
        return int(match[1]), int(match[2])
    if match := re.search(r"\.so\.(\d+)(?:\.(\d+))?", path.name):
        return int(match[1]), int(match[2] or 0)
    return 0, 0


def candidate_libraries() -> Iterator[Path]:
    """NVRTC libraries on this machine, best first: the CUDA generation of torch, then the newest.

    A driver that serves torch's CUDA may be too old for what a later NVRTC makes.
    """
    generation = int((torch.version.cuda or "0").split(".")[0])
    found = [
        path
        for patterns, folders in ((PACKAGE_PATTERNS, package_folders()), (TOOLKIT_PATTERNS, toolkit_folders()))
        for folder in folders
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
        if "builtins" not in path.name and ".alt." not in path.name
    ]
    yield from sorted(
        dict.fromkeys(found),
        key=lambda path: (library_version(path)[0] == generation, library_version(path)),
        reverse=True,
    )
    if system := ctypes.util.find_library("nvrtc"):
        yield Path(system)


@dataclass(frozen=True)
class Nvrtc:
    """A loaded NVRTC.

    Attributes:
        path: where it was found.
        version: of CUDA, (major, minor).
        architectures: compute capabilities it compiles for, 10 * major + minor, ascending.
    """

    path: Path
    library: ctypes.CDLL
    version: tuple[int, int]
    architectures: tuple[int, ...]

    def compile(
        self, source: str, name: str, headers: Mapping[str, str], options: Sequence[str], ptx: bool = False
    ) -> tuple[bytes, str]:
        """Compile one CUDA source.

        Args:
            source: its text.
            name: by which messages call it.
            headers: texts by the names that ``#include`` uses; no folder is searched.
            options: as for nvcc.
            ptx: return PTX (zero-terminated) for the driver to compile, not a cubin.

        Returns:
            The image, and the compiler's warnings.

        Raises:
            NvrtcError: with the compiler's messages where the source does not compile.
        """
        program = ctypes.c_void_p()
        names = _strings(list(headers))
        texts = _strings(list(headers.values()))
        self._call("CreateProgram", ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names)
        try:
            code = self.library.nvrtcCompileProgram(program, len(options), _strings(options))
            log = self._read("ProgramLog", program).rstrip(b"\0\n").decode(errors="replace")
            if code != 0:
                raise NvrtcError(f"{self.path} could not compile {name} ({' '.join(options)}):\n{log[:LOG_CHARACTERS]}")
            return self._read("PTX" if ptx else "CUBIN", program), log
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self.library, f"nvrtc{name}")(*arguments)
        if code != 0:
            words = self.library.nvrtcGetErrorString(code).decode(errors="replace")
            raise NvrtcError(f"{self.path}: nvrtc{name} failed: {words}")


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))


def open_nvrtc(path: Path) -> Nvrtc:
    """Load one library.

    Raises:
        OSError: where it is no library that loads here.
        AttributeError: where it lacks a function that is needed (CUDA before 11.2).
    """
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    architectures = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(architectures)
    return Nvrtc(path, library, (major.value, minor.value), tuple(sorted(architectures)))


@functools.cache
def load_nvrtc() -> Nvrtc:
    """The best NVRTC that loads here, once per process.

    Raises:
        NvrtcError: where there is none; the message names the package that brings it.
    """
    failures = []
    for path in candidate_libraries():
        try:
            return open_nvrtc(path)
        except (OSError, AttributeError) as error:
            failures.append(f"{path} ({error})")
    generation = (torch.version.cuda or "13").split(".")[0]
    package = "nvidia-cuda-nvrtc" if int(generation) >= 13 else f"nvidia-cuda-nvrtc-cu{generation}"
    tried = f"; these do not load: {', '.join(failures)}" if failures else ""
    raise NvrtcError(
        f"the CUDA kernels are compiled at first use by NVRTC, which torch's CUDA wheels bring, but there is none "
        f"here; install it with `pip install {package}`{tried}"
    )
