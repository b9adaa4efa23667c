"""The CUDA backend without a GPU: its own pipeline, with kernels that are emulated on the CPU."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE
from rasterizer.cuda_abi import CudaLibrary
from rasterizer.cuda_autograd import rasterize_through
from rasterizer.cuda_pipeline import CudaPipeline, Info
from rasterizer.cuda_stages import Kernels, Options
from tests.rasterizer.emulation.build import build_emulation


@functools.cache
def load_emulation(channels: int, depth: bool) -> Kernels:
    """The launcher with the kernels for so many channels built in; compiled at first use."""
    library = CudaLibrary(build_emulation(channels, depth))
    library.open()
    return Kernels(library, library.load(b""))


PIPELINE = CudaPipeline(lambda device, channels, depth: load_emulation(channels, depth))


def emulated_rasterize(  # noqa: PLR0917 - the arguments every backend takes
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    backgrounds: Tensor | None = None,
    sh_degree: int | None = None,
    near_plane: float = DEFAULT_NEAR_PLANE,
    far_plane: float = DEFAULT_FAR_PLANE,
    eps2d: float = DEFAULT_EPS2D,
    antialiased: bool = False,
    depth: bool = False,
    inria: bool = False,
    deterministic: bool = True,
    max_instances: int | None = None,
    max_bytes: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Info]:
    """``rasterize_cuda`` for float32 CPU tensors; ``max_bytes`` of lists per chunk."""
    tensors = (means, quats, scales, opacities, colors, viewmats, Ks, backgrounds)
    assert all(tensor is None or tensor.dtype == torch.float32 for tensor in tensors)
    options = Options(
        width=width, height=height, sh_degree=sh_degree, near_plane=near_plane, far_plane=far_plane, eps2d=eps2d,
        antialiased=antialiased, depth=depth, inria=inria, deterministic=deterministic, max_instances=max_instances,
        max_bytes=max_bytes,
    )  # fmt: skip
    return rasterize_through(PIPELINE, tensors, options)
