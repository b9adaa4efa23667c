"""Builds the driver of the launcher's tests, and gives every test its own copy of it and of the compiled core.

The core opens a driver once per process; copies of the libraries have state of their own.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rasterizer.backend import find_library
from rasterizer.cuda_abi import CudaLibrary, CudaParams

HERE = Path(__file__).parent
HEADERS = HERE.parents[2] / "rasterizer" / "csrc" / "cuda"
IMAGE = b"an image"
CONTEXT = 0xC0


class Launch(ctypes.Structure):
    """``Launch`` of ``fake_driver.cpp``."""

    _fields_ = (
        ("kernel", ctypes.c_char * 32),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
        ("params", CudaParams),
    )


@dataclass
class FakeDriver:
    path: Path
    library: ctypes.CDLL

    def fail(self, call: str, code: int) -> None:
        self.library.fake_fail(call.encode(), code)

    def enter(self, context: int) -> None:
        self.library.fake_enter(ctypes.c_void_p(context))

    def launches(self) -> list[Launch]:
        self.library.fake_launch.restype = ctypes.POINTER(Launch)
        return [self.library.fake_launch(index).contents for index in range(self.library.fake_launches())]


def build_driver(folder: Path, *definitions: str) -> Path:
    path = folder / "libfake_driver.so"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{HEADERS}"]
    subprocess.run([*command, *definitions, str(HERE / "fake_driver.cpp"), "-o", str(path)], check=True)
    return path


def copy_driver(built: Path, folder: Path) -> FakeDriver:
    path = Path(shutil.copy(built, folder / "libcuda.so.1"))
    return FakeDriver(path, ctypes.CDLL(str(path)))


def copy_core(folder: Path) -> CudaLibrary:
    return CudaLibrary(shutil.copy(find_library(), folder / "core.so"))
