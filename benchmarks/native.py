"""Small C++ programs that benchmarks compare with, compiled for this machine when a benchmark starts.

Needs a C++20 compiler: ``$CXX``, or g++ or clang++ on the path.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCES = Path(__file__).parent / "baseline"
GRADIENTS = ("means", "quats", "scales", "opacities", "colors")


@functools.cache
def build(name: str) -> ctypes.CDLL:
    """Compile ``baseline/<name>.cpp`` with -O3 -march=native and load it.

    Raises:
        SystemExit: without a compiler, with a line that says what to install.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise SystemExit("this benchmark compiles a C++ program to compare with: install g++ or clang++, or set CXX")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / f"{name}.so"
        command = [compiler, "-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC", "-pthread"]
        subprocess.run([*command, "-o", str(library), str(SOURCES / f"{name}.cpp")], check=True)
        return ctypes.CDLL(str(library))


def measure_rates(threads: int, repeats: int = 100) -> dict[str, float]:
    """Ceilings of this machine on so many threads: GFLOP/s of float32 multiply-adds, GB/s copied (read and written).

    The best of so many short measurements (two seconds): a ceiling taken while others compute would flatter.
    """
    library = build("machine_rates")
    for function in (library.measure_multiply_adds, library.measure_copy):
        function.restype = ctypes.c_double
    return {
        "gflops": library.measure_multiply_adds(threads, repeats),
        "copy_gb_per_s": library.measure_copy(threads, repeats),
    }


class PlainInput(ctypes.Structure):
    """``Input`` of ``plain_rasterizer.cpp``, field by field."""

    _fields_ = (
        [("count", ctypes.c_int64)]
        + [(name, ctypes.c_int32) for name in ("width", "height", "threads")]
        + [(name, ctypes.c_float) for name in ("near_plane", "eps2d")]
        + [
            (name, ctypes.c_void_p)
            for name in (*GRADIENTS, "viewmats", "Ks", "backgrounds")
        ]
    )  # fmt: skip


class PlainRasterizer:
    """One scene from one camera by the plain C++ rasterizer; ``forward``, then ``backward``."""

    def __init__(self, scene: dict[str, Any], size: int) -> None:
        self.library = build("plain_rasterizer")
        self.library.plain_forward.restype = ctypes.c_void_p
        self.tensors = {name: tensor.detach()[0].contiguous() for name, tensor in scene.items()}
        self.size = size

    def forward(self) -> tuple[Tensor, Tensor, ctypes.c_void_p]:
        """Colours [H, W, 3], alphas [H, W] and what ``backward`` needs."""
        arguments = PlainInput(
            count=len(self.tensors["means"]), width=self.size, height=self.size, threads=torch.get_num_threads(),
            near_plane=0.01, eps2d=0.3, **{name: tensor.data_ptr() for name, tensor in self.tensors.items()},
        )  # fmt: skip
        colors, alphas = torch.empty(self.size, self.size, 3), torch.empty(self.size, self.size)
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (colors, alphas)]
        state = self.library.plain_forward(ctypes.byref(arguments), *pointers)
        return colors, alphas, ctypes.c_void_p(state)

    def backward(self, state: ctypes.c_void_p, v_colors: Tensor) -> dict[str, Tensor]:
        """Gradients by name; ``state`` is used up."""
        gradients = {name: torch.empty_like(self.tensors[name]) for name in GRADIENTS}
        incoming = v_colors.contiguous()
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (incoming, *gradients.values())]
        self.library.plain_backward(state, *pointers)
        self.library.plain_free(state)
        return gradients
