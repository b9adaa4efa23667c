"""The compiled CPU core as a function of torch.

What is kept for the backward pass: the inputs, the images, and two blocks of memory which the core has filled in the
forward pass (projected Gaussians; the tiles' sorted lists). The backward pass replays the blending front to back from
those, so that nothing is projected for binning or sorted again; per-pixel state beyond the images is not needed.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.autograd.function import once_differentiable

from rasterizer.averaging import divide_by_alphas
from rasterizer.backend import Params, check, load_library
from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE


def find_memory() -> int:
    """Bytes of this machine's memory, or a modest guess where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


# Most memory that is kept for the next call while nothing uses it.
KEPT_BYTES = max(512 << 20, find_memory() // 16)
LARGE_BYTES = 4 << 20  # blocks from this size on get large pages, where the system has them


class MemoryPool:
    """Blocks of memory that outlive a call.

    Fresh memory is mapped page by page as it is first written. For one 512-pixel view of 240,000 Gaussians that is a
    third of the time of a pass, so blocks are handed on from pass to pass.
    """

    def __init__(self) -> None:
        self.free: list[Tensor] = []
        self.lock = threading.Lock()

    def take(self, size: int) -> UInt8[Tensor, " bytes"]:
        """A block of at least ``size`` bytes, its contents undefined."""
        with self.lock:
            fitting = [block for block in self.free if size <= block.numel() <= 4 * size + (1 << 20)]
            if fitting:
                best = min(fitting, key=Tensor.numel)
                self.free = [block for block in self.free if block is not best]
                return best
        # An eighth more than needed: the number of instances changes a little from step to step.
        block = torch.empty(max(size + size // 8, 1 << 12), dtype=torch.uint8)
        if block.numel() >= LARGE_BYTES:
            load_library().rz_advise(ctypes.c_void_p(block.data_ptr()), ctypes.c_int64(block.numel()))
        return block

    def give(self, block: Tensor) -> None:
        """Return a block for later use; the blocks returned longest ago are freed beyond ``KEPT_BYTES``."""
        with self.lock:
            self.free.append(block)
            while sum(block.numel() for block in self.free) > KEPT_BYTES:
                self.free.pop(0)

    def clear(self) -> None:
        """Free all unused blocks."""
        with self.lock:
            self.free.clear()


pool = MemoryPool()


class Loan:
    """A block of ``pool`` for as long as this object lives."""

    def __init__(self, size: int) -> None:
        self.block = pool.take(size)

    @property
    def address(self) -> int:
        return self.block.data_ptr()

    def __del__(self) -> None:
        pool.give(self.block)


@dataclass(kw_only=True)
class Call:
    """Options of one call, and what it found out."""

    width: int
    height: int
    sh_degree: int | None
    near_plane: float
    far_plane: float
    eps2d: float
    antialiased: bool
    depth: bool
    inria: bool
    forward_only: bool = False  # no gradient will be asked for
    info: dict[str, int | str] = field(default_factory=dict)


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def fill_params(tensors: list[Tensor | None], call: Call) -> Params:
    """Sizes, options and inputs of a pass; ``tensors`` in the order of ``rasterize_cpu``, contiguous."""
    means, quats, scales, opacities, colors, viewmats, Ks, backgrounds = map(address, tensors)
    _, _, _, features, cameras = (tensors[i].shape for i in (0, 1, 2, 4, 5))  # type: ignore[union-attr]
    return Params(
        batch=cameras[0], views=cameras[1], gaussians=features[1], channels=features[-1],
        sh_coefficients=0 if call.sh_degree is None else features[2], sh_degree=call.sh_degree or 0,
        width=call.width, height=call.height, antialiased=call.antialiased, depth=call.depth,
        inria=call.inria, forward_only=call.forward_only,
        threads=torch.get_num_threads(), near_plane=call.near_plane, far_plane=call.far_plane,
        eps2d=call.eps2d, means=means, quats=quats, scales=scales, opacities=opacities, colors=colors,
        viewmats=viewmats, intrinsics=Ks, backgrounds=backgrounds,
    )  # fmt: skip


class RasterizeCpu(torch.autograd.Function):
    """Colours, alphas and depth sums (sum of weight times z; divide by alpha for the expected depth)."""

    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        library = load_library()
        tensors = [None if tensor is None else tensor.contiguous() for tensor in inputs]
        params = fill_params(tensors, call)
        reference = ctypes.byref(params)
        views = Loan(library.rz_view_bytes(reference))
        params.view_memory = views.address
        check(library.rz_plan(reference))
        instances = Loan(library.rz_instance_bytes(reference))
        params.instance_memory = instances.address
        shape = (params.batch, params.views, call.height, call.width)
        colors, alphas = torch.empty((*shape, params.channels)), torch.empty((*shape, 1))
        depths = torch.empty((*shape, 1)) if call.depth else None
        params.out_colors, params.out_alphas = address(colors), address(alphas)
        params.out_depths = address(depths)
        check(library.rz_render(reference))
        pairs = params.batch * params.views * params.gaussians
        call.info = {
            "instances": params.instances, "culled": pairs - params.drawn, "nonfinite": params.nonfinite,
            "backend": "cpu",
        }  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, colors, alphas, depths)
        ctx.params, ctx.memory = params, (views, instances)
        return colors, alphas, depths

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name of ctx
        ctx: Any, *grads: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        library = load_library()
        *inputs, _colors, _alphas, _depths = ctx.saved_tensors
        incoming = [None if grad is None else grad.contiguous() for grad in grads]
        wanted = ctx.needs_input_grad[1:]
        outgoing = [
            torch.empty_like(tensor) if tensor is not None and want else None for tensor, want in zip(inputs, wanted)
        ]
        params = Params.from_buffer_copy(ctx.params)
        params.threads = torch.get_num_threads()
        params.v_colors, params.v_alphas, params.v_depths = map(address, incoming)
        (
            params.v_means, params.v_quats, params.v_scales, params.v_opacities, params.v_features,
            params.v_viewmats, params.v_intrinsics, params.v_backgrounds,
        ) = map(address, outgoing)  # fmt: skip
        reference = ctypes.byref(params)
        gradients = Loan(library.rz_gradient_bytes(reference))
        params.gradient_memory = gradients.address
        check(library.rz_backward(reference))
        return None, *outgoing


def rasterize_cpu(  # noqa: PLR0913, PLR0917 - the arguments every backend takes
    means: Float[Tensor, "batch n 3"],
    quats: Float[Tensor, "batch n 4"],
    scales: Float[Tensor, "batch n 3"],
    opacities: Float[Tensor, "batch n"],
    colors: Float[Tensor, "batch n *channels"],
    viewmats: Float[Tensor, "batch view 4 4"],
    Ks: Float[Tensor, "batch view 3 3"],
    width: int,
    height: int,
    *,
    backgrounds: Float[Tensor, "batch view channel"] | None = None,
    sh_degree: int | None = None,
    near_plane: float = DEFAULT_NEAR_PLANE,
    far_plane: float = DEFAULT_FAR_PLANE,
    eps2d: float = DEFAULT_EPS2D,
    antialiased: bool = False,
    depth: bool = False,
    inria: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, int | str]]:
    """Rasterize float32 CPU tensors with the compiled core, on ``torch.get_num_threads()`` threads.

    The arguments are those of ``rasterizer.rasterize`` with exactly one batch axis; shapes are not checked here;
    ``inria`` is ``compat="inria"`` there. The result has the same bits for any number of threads.

    Returns:
        colors [batch, view, height, width, channel], alphas and depths [batch, view, height, width, 1]
        (depths None unless asked for), and the counts that ``rasterizer.Render`` explains.

    Raises:
        BackendError: (a ``ValueError``) where the core is missing or the lists of the tiles grow too long.
        ValueError: for other than float32 CPU tensors.
    """
    tensors = (means, quats, scales, opacities, colors, viewmats, Ks, backgrounds)
    for tensor in tensors:
        if tensor is not None and (tensor.dtype is not torch.float32 or tensor.device.type != "cpu"):
            raise ValueError(f"the CPU core takes float32 CPU tensors, got {tensor.dtype} on {tensor.device}")
    call = Call(
        width=width, height=height, sh_degree=sh_degree, near_plane=near_plane, far_plane=far_plane,
        eps2d=eps2d, antialiased=antialiased, depth=depth, inria=inria,
        forward_only=not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)),
    )  # fmt: skip
    images, alphas, depths = RasterizeCpu.apply(call, *tensors)  # type: ignore[misc]
    if depths is not None:
        depths = divide_by_alphas(depths, alphas)
    return images, alphas, depths, call.info
