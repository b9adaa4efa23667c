"""Finds and loads the compiled core, once per process. The only file that knows the C ABI (``csrc/params.h``)."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path

import rasterizer

ABI_VERSION = 2  # RZ_ABI_VERSION of csrc/params.h
LIBRARY_STEM = "rasterizer_cpu"
ISA_VARIABLE = "RASTERIZER_ISA"
ERRORS = {
    1: "an argument is out of range (an image side is at most 65536 pixels)",
    2: "more than 2^32 - 1 pairs of tile and Gaussian: the Gaussians are too large or too many; "
    "render fewer views per call",
    3: "no such instruction set on this machine",
    4: "out of memory, or a thread could not be started",
}

_SIZES = ("batch", "views", "gaussians", "channels", "sh_coefficients")
_OPTIONS = ("sh_degree", "width", "height", "antialiased", "depth", "inria", "forward_only", "threads")
_NUMBERS = ("near_plane", "far_plane", "eps2d")
_POINTERS = (
    "means", "quats", "scales", "opacities", "colors", "viewmats", "intrinsics", "backgrounds",
    "out_colors", "out_alphas", "out_depths", "view_memory", "instance_memory", "gradient_memory",
)  # fmt: skip
_RESULTS = ("instances", "longest", "drawn", "nonfinite")
_GRADIENTS = (
    "v_colors", "v_alphas", "v_depths", "v_means", "v_quats", "v_scales", "v_opacities", "v_features",
    "v_viewmats", "v_intrinsics", "v_backgrounds",
)  # fmt: skip


class BackendError(ValueError):
    """A compiled core is missing, does not fit this version of the package, or reported an error."""


class Params(ctypes.Structure):
    """``RzParams`` of ``csrc/params.h``, field by field."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in _SIZES]
        + [(name, ctypes.c_int32) for name in _OPTIONS]
        + [(name, ctypes.c_float) for name in _NUMBERS]
        + [("isa", ctypes.c_int32)]
        + [(name, ctypes.c_void_p) for name in _POINTERS]
        + [(name, ctypes.c_int64) for name in _RESULTS]
        + [(name, ctypes.c_void_p) for name in _GRADIENTS]
    )


def search_folders() -> list[Path]:
    """Where the compiled core may be. An editable install keeps it in site-packages, apart from the sources; the
    package's own path names both, but not when an import hook has loaded the sources directly.
    """
    return [Path(folder) for folder in rasterizer.__path__] + [Path(folder, "rasterizer") for folder in sys.path]


def find_library() -> Path:
    """Path of the compiled core.

    Raises:
        BackendError: where there is none; the message names the command that builds it.
    """
    names = [f"{prefix}{LIBRARY_STEM}{suffix}" for suffix in (".so", ".dylib", ".dll") for prefix in ("lib", "")]
    for folder in search_folders():
        for name in names:
            path = folder / name
            if path.is_file():
                return path
    raise BackendError(
        f"the compiled CPU core ({names[0]}) is not in {', '.join(rasterizer.__path__)}; build it with "
        "`pip install .` in the project's folder (needs only a C++20 compiler)"
    )


@functools.cache
def load_library() -> ctypes.CDLL:
    """Load the compiled core and choose its instruction set: the best, or what ``RASTERIZER_ISA`` names.

    Raises:
        BackendError: where the library is missing, cannot be loaded, or has another ABI than this file.
    """
    path = find_library()
    try:
        library = ctypes.CDLL(str(path))
        found = library.rz_abi()
    except (OSError, AttributeError) as error:
        raise BackendError(f"{path} cannot be used: {error}; rebuild it with `pip install .`") from error
    for name in ("rz_params_bytes", "rz_view_bytes", "rz_instance_bytes", "rz_gradient_bytes"):
        getattr(library, name).restype = ctypes.c_int64
    if found != ABI_VERSION or library.rz_params_bytes() != ctypes.sizeof(Params):
        raise BackendError(
            f"{path} has ABI {found}, this version of the package needs {ABI_VERSION}: the library is left over "
            "from another build; rebuild it with `pip install .`"
        )
    for name in ("rz_isa", "rz_isas"):
        getattr(library, name).restype = ctypes.c_char_p
    select_isa(os.environ.get(ISA_VARIABLE, ""), library)
    return library


def available_backends() -> tuple[str, ...]:
    """Names that ``rasterize(backend=...)`` can serve here: "reference" always, "cpu" if its core loads, and "cuda" if
    torch sees a GPU and the core opens its driver.
    """
    try:
        load_library()
    except BackendError:
        return ("reference",)
    return ("reference", "cpu", "cuda") if has_cuda() else ("reference", "cpu")


def has_cuda() -> bool:
    """Whether torch sees a GPU whose driver the core can open."""
    import torch

    from rasterizer.cuda_abi import load_cuda_library

    try:
        return torch.cuda.is_available() and bool(load_cuda_library())
    except BackendError:
        return False


def available_isas() -> tuple[str, ...]:
    """Instruction sets for which the core is compiled and that this machine can run, best first."""
    return tuple(load_library().rz_isas().decode().split(","))


def select_isa(name: str = "", library: ctypes.CDLL | None = None) -> None:
    """Let the core compute with one of ``available_isas``, or with the best for "". For tests and comparisons.

    Raises:
        BackendError: for an unknown name, or one that this machine cannot run.
    """
    library = library or load_library()
    if library.rz_select_isa(name.encode()) != 0:
        raise BackendError(
            f"instruction set {name!r} (from {ISA_VARIABLE}?): expected one of {library.rz_isas().decode()}"
        )


def check(code: int) -> None:
    """Turn an error code of the core into an exception."""
    if code != 0:
        raise BackendError(f"the CPU rasterizer failed: {ERRORS.get(code, f'code {code}')}")
