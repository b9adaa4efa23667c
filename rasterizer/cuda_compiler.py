"""Compiles the CUDA kernels for the GPU that is there, at first use, and keeps the result.

The kernels (``csrc/cuda/kernels.cu``) ship as sources. NVRTC compiles them for one compute capability, number of image
channels, and with or without depth, in about a second; the image is kept on disk under a name that holds everything
it depends on. Compiling needs no GPU: to serve machines without NVRTC, fill a folder elsewhere (``RASTERIZER_CACHE``
names it, ``compile_kernels`` fills it) and name it there in ``RASTERIZER_CUBINS``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import posixpath
import re
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rasterizer.backend import BackendError
from rasterizer.cuda_abi import ABI_VERSION
from rasterizer.kernel_cache import cache_folder, read_image, write_image
from rasterizer.nvrtc import Nvrtc, NvrtcError, load_nvrtc

PREBUILT_VARIABLE = "RASTERIZER_CUBINS"
ROOT = Path(__file__).parent / "csrc"
MAIN = "cuda/kernels.cu"
EMULATION = "emulation/"  # of the tests; not in a wheel, and never compiled by NVRTC
# Without denormals an exponential is one instruction; division and square roots stay exact.
OPTIONS = ("--std=c++17", "--ftz=true")
MAX_CHANNELS = 32
SUFFIX = ".kernels"

_INCLUDE = re.compile(r'^([ \t]*#[ \t]*include[ \t]+)"([^"]+)"', re.MULTILINE)
_images: dict[tuple[tuple[int, int], int, bool], bytes] = {}
_lock = threading.Lock()


class Sources(NamedTuple):
    """``main``, and the headers it reaches, by the names under which they include each other."""

    main: str
    headers: dict[str, str]


class Target(NamedTuple):
    """What an image is compiled for: a cubin for ``architecture``, or PTX that the driver compiles for later ones."""

    architecture: int
    ptx: bool

    @property
    def option(self) -> str:
        return f"{'compute' if self.ptx else 'sm'}_{self.architecture}"

    def fits(self, capability: tuple[int, int]) -> bool:
        """Whether a GPU runs the image: cubins within a major version at the same minor one or a later one."""
        wanted = 10 * capability[0] + capability[1]
        return self.architecture <= wanted and (self.ptx or self.architecture // 10 == capability[0])


def _canonical_name(path: str) -> str:
    # Not just "math.h": a standard header of that name must never be taken for ours.
    return f"rasterizer/{path}"


@functools.cache
def read_sources() -> Sources:
    """The kernels' sources. Include directives are rewritten to names from the root of ``csrc``, each of one file.

    Raises:
        BackendError: where a file is missing.
    """
    texts: dict[str, str] = {}
    waiting = [MAIN]
    while waiting:
        path = waiting.pop()
        if path in texts:
            continue
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except OSError as error:
            raise BackendError(
                f"a source of the CUDA kernels cannot be read: {error}; reinstall the package"
            ) from error
        folder = posixpath.dirname(path)

        def rewrite(match: re.Match[str], folder: str = folder) -> str:
            included = posixpath.normpath(posixpath.join(folder, match[2]))
            if not included.startswith(EMULATION):
                waiting.append(included)
            return f'{match[1]}"{_canonical_name(included)}"'

        texts[path] = _INCLUDE.sub(rewrite, text)
    main = texts.pop(MAIN)
    return Sources(main, {_canonical_name(path): texts[path] for path in sorted(texts)})


def choose_target(capability: tuple[int, int], architectures: Iterable[int]) -> Target:
    """The best of the architectures that a compiler knows for a GPU.

    Raises:
        BackendError: where the GPU is older than all of them.
    """
    wanted = 10 * capability[0] + capability[1]
    older = [architecture for architecture in architectures if architecture <= wanted]
    if not older:
        raise BackendError(
            f"the GPU has compute capability {capability[0]}.{capability[1]}, the NVRTC here compiles for "
            f"{min(architectures) / 10:.1f} and later; install a torch of an earlier CUDA, or use CPU tensors"
        )
    return Target(max(older), ptx=max(older) // 10 != capability[0])


@functools.cache
def _variant(channels: int, depth: bool) -> str:
    # Everything an image depends on, except its target and the compiler.
    parts = [ABI_VERSION, OPTIONS, *read_sources()]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"c{channels}-d{int(depth)}-{digest[:24]}"


def _file_name(target: Target, variant: str, version: tuple[int, int]) -> str:
    return f"{target.option}-{variant}-nvrtc{version[0]}.{version[1]}{SUFFIX}"


def _find_image(folder: Path | None, capability: tuple[int, int], variant: str) -> bytes | None:
    """The best image of these sources in a folder, whichever NVRTC made it."""
    if folder is None:
        return None
    found = []
    for path in folder.glob(f"*_*-{variant}-nvrtc*{SUFFIX}"):
        match = re.fullmatch(r"(sm|compute)_(\d+)-.*-nvrtc(\d+)\.(\d+)", path.name.removesuffix(SUFFIX))
        target = Target(int(match[2]), ptx=match[1] == "compute") if match else None
        if match and target and target.fits(capability):
            found.append(((not target.ptx, target.architecture, int(match[3]), int(match[4])), path))
    for _, path in sorted(found, reverse=True):
        if image := read_image(path):
            return image
        warnings.warn(f"{path} is damaged and was passed over", RuntimeWarning, stacklevel=2)
    return None


def _prebuilt_folder() -> Path | None:
    chosen = os.environ.get(PREBUILT_VARIABLE)
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise BackendError(f"{PREBUILT_VARIABLE} names {folder}, which is not a folder; correct or unset it")
    return folder


def compile_image(nvrtc: Nvrtc, target: Target, channels: int, depth: bool) -> tuple[bytes, str]:
    """Compile the kernels without any cache.

    Returns:
        The image, and the compiler's warnings.
    """
    sources = read_sources()
    options = [
        f"--gpu-architecture={target.option}", *OPTIONS, f"-DRZ_CHANNELS={channels}", f"-DRZ_DEPTH={int(depth)}",
    ]  # fmt: skip
    return nvrtc.compile(sources.main, _canonical_name(MAIN), sources.headers, options, target.ptx)


def _obtain(capability: tuple[int, int], channels: int, depth: bool) -> bytes:
    variant, folder, prebuilt = _variant(channels, depth), cache_folder(), _prebuilt_folder()
    if image := _find_image(prebuilt, capability, variant):
        return image
    try:
        nvrtc = load_nvrtc()
    except NvrtcError as error:
        if image := _find_image(folder, capability, variant):
            return image
        looked = f" (nor has {prebuilt} these kernels)" if prebuilt else ""
        raise NvrtcError(f"{error}{looked}") from error
    target = choose_target(capability, nvrtc.architectures)
    path = folder / _file_name(target, variant, nvrtc.version) if folder else None
    if path and (image := read_image(path)):
        return image
    image, _ = compile_image(nvrtc, target, channels, depth)
    if path:
        write_image(path, image)
    return image


def compile_kernels(capability: tuple[int, int], channels: int, depth: bool) -> bytes:
    """The kernels' image for a GPU: from memory, the prebuilt folder, the cache on disk, or compiled now.

    Args:
        capability: of the GPU, as ``torch.cuda.get_device_capability`` gives it.
        channels: of the image, 1 to 32.
        depth: whether depth is accumulated too.

    Returns:
        A cubin, or zero-terminated PTX where the GPU is newer than the NVRTC here: for ``CudaLibrary.load``.

    Raises:
        BackendError: where the image is nowhere to be found and cannot be compiled; the message says what to install.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise BackendError(f"CUDA kernels blend 1 to {MAX_CHANNELS} channels, not {channels}; use several calls")
    key = (capability, channels, depth)
    with _lock:
        if key not in _images:
            _images[key] = _obtain(capability, channels, depth)
        return _images[key]
