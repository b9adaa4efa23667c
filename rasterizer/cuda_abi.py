"""The C ABI of the CUDA launcher (``csrc/cuda/launch.h``) through ctypes, and what its errors mean to a user.

The launcher is part of the compiled core; it opens the CUDA driver at run time. The tests load a second library with
the same ABI, in which the kernels are built in and run on the CPU.
"""

from __future__ import annotations

import ctypes
import enum
import functools
from pathlib import Path

from rasterizer.backend import BackendError, find_library

ABI_VERSION = 2  # RZ_CUDA_ABI_VERSION of csrc/cuda/params.h
RECORD_FLOATS = 12  # these six: RZ_CUDA_* of the same header
FOOTPRINT_FLOATS = 4
CAMERA_FLOATS = 16
MOMENTS = 6
MAX_GAUSSIANS = 1 << 24
SHORT_KEY_BIAS = 1 << 15
MESSAGE_BYTES = 1024
REMEDIES = {
    1: "an argument of the CUDA launcher is out of range or missing",
    2: "no CUDA driver was found; install the NVIDIA driver of this machine's GPU, or use CPU tensors",
    3: "the CUDA driver is too old; update the NVIDIA driver, or use CPU tensors",
    4: "the CUDA driver reported an error",
    5: "the CUDA launcher failed",
}

_SIZES = ("batch", "views", "gaussians", "channels", "sh_coefficients", "instances")
_OPTIONS = (
    "sh_degree", "width", "height", "tiles_x", "tiles_y", "antialiased", "depth", "inria", "atomics", "accumulate",
    "key_bytes",
)  # fmt: skip
_NUMBERS = ("near_plane", "far_plane", "eps2d")
POINTERS = (
    "means", "quats", "scales", "opacities", "colors", "viewmats", "intrinsics", "backgrounds",
    "records", "footprints", "sort_depths", "counts", "totals",
    "order", "ends",
    "first_slots", "keys", "payloads",
    "sorted_keys", "sorted_slots",
    "entries", "tile_ranges",
    "out_colors", "out_alphas", "out_depths", "last_ids",
    "v_colors", "v_alphas", "v_depths",
    "touched", "gradients",
    "v_means", "v_quats", "v_scales", "v_opacities", "v_features", "camera_partials",
)  # fmt: skip


class Stage(enum.IntEnum):
    """``RZ_STAGE_*`` of ``csrc/cuda/params.h``, in the order of a pass; kernels are named ``rz_`` + the name."""

    PROJECT = 0
    EMIT = 1
    LIST = 2
    BLEND = 3
    BLEND_BACKWARD = 4
    PROJECT_BACKWARD = 5

    @property
    def kernel(self) -> str:
        """Name of the stage's entry in the compiled image."""
        return f"rz_{self.name.lower()}"


class CudaParams(ctypes.Structure):
    """``RzCudaParams`` of ``csrc/cuda/params.h``, field by field."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in _SIZES]
        + [(name, ctypes.c_int32) for name in _OPTIONS]
        + [(name, ctypes.c_float) for name in _NUMBERS]
        + [(name, ctypes.c_void_p) for name in POINTERS]
    )


class CudaLibrary:
    """A library with the launcher's ABI: the compiled core, or the emulation of the tests.

    Args:
        path: of the library. Loading it needs no driver; ``open`` does.

    Raises:
        BackendError: where it cannot be loaded, lacks the launcher, or was built from other sources.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._library = ctypes.CDLL(str(path))
            found = self._library.rz_cuda_abi()
        except (OSError, AttributeError) as error:
            raise BackendError(f"{path} cannot be used: {error}; rebuild it with `pip install .`") from error
        self._declare()
        if found != ABI_VERSION or self._library.rz_cuda_params_bytes() != ctypes.sizeof(CudaParams):
            raise BackendError(
                f"{path} has CUDA ABI {found}, this version of the package needs {ABI_VERSION}: the library is left "
                "over from another build; rebuild it with `pip install .`"
            )

    def _declare(self) -> None:
        library, pointer, size = self._library, ctypes.c_void_p, ctypes.c_int64
        params = ctypes.POINTER(CudaParams)
        library.rz_cuda_params_bytes.restype = size
        library.rz_cuda_open.argtypes = [ctypes.c_char_p, ctypes.c_char_p, size]
        library.rz_cuda_load.argtypes = [ctypes.c_char_p, size, ctypes.POINTER(pointer), ctypes.c_char_p, size]
        library.rz_cuda_launch.argtypes = [pointer, ctypes.c_int, params, pointer, ctypes.c_char_p, size]
        library.rz_cuda_camera_blocks.argtypes = [params]
        library.rz_cuda_camera_blocks.restype = size

    def open(self, driver_path: str | Path | None = None) -> None:
        """Open the driver: the system's, or the library at ``driver_path``. Repeating the call does nothing.

        Raises:
            BackendError: where there is no driver, it is too old, or it does not start (no GPU, for example).
        """
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        path = None if driver_path is None else str(driver_path).encode()
        check(self._library.rz_cuda_open(path, message, MESSAGE_BYTES), message)

    def load(self, image: bytes) -> int:
        """Load a compiled image (cubin or zero-terminated PTX) into the current CUDA context.

        Returns:
            A handle for ``launch``, valid on the device that is current now, until the process ends.

        Raises:
            BackendError: where the driver refuses the image, or a kernel is not in it.
        """
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        module = ctypes.c_void_p()
        code = self._library.rz_cuda_load(image, len(image), ctypes.byref(module), message, MESSAGE_BYTES)
        check(code, message)
        return module.value or 0

    def launch(self, module: int, stage: int, params: CudaParams, stream: int) -> None:
        """Start one stage on a stream (``torch.cuda.current_stream().cuda_stream``), without waiting for it.

        Raises:
            BackendError: where an argument is out of range, or the driver refuses the launch.
        """
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        code = self._library.rz_cuda_launch(module, stage, params, stream, message, MESSAGE_BYTES)
        check(code, message, stage)

    def camera_blocks(self, params: CudaParams) -> int:
        """Second size of ``camera_partials`` [B, blocks, V, 16] for these numbers of Gaussians."""
        return self._library.rz_cuda_camera_blocks(params)


def check(code: int, message: ctypes.Array[ctypes.c_char], stage: int | None = None) -> None:
    """Turn an error code of the launcher into an exception that says what to do."""
    if code == 0:
        return
    where = f" (stage {Stage(stage).name})" if stage in Stage._value2member_map_ else ""
    detail = message.value.decode(errors="replace")
    raise BackendError(f"CUDA rasterizer{where}: {REMEDIES.get(code, f'code {code}')}: {detail}")


@functools.cache
def load_cuda_library() -> CudaLibrary:
    """The compiled core with the system's driver open, once per process.

    Raises:
        BackendError: as ``CudaLibrary`` and ``CudaLibrary.open``. A failure is not remembered.
    """
    library = CudaLibrary(find_library())
    library.open()
    return library
