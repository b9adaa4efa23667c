"""The CUDA core as a function of torch.

What is kept for the backward pass: the inputs, the images, and what blending read (projected Gaussians; the tiles'
sorted lists), all through ``save_for_backward``, so that it is freed with the graph and hooks on saved tensors see it.
The backward pass replays the blending front to back from those: nothing is sorted again, and there is no state per
pixel besides the images and the place in the list where the pixel ended. Calls that were cut into chunks keep no lists.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from rasterizer.averaging import divide_by_alphas
from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE
from rasterizer.cuda_abi import load_cuda_library
from rasterizer.cuda_compiler import MAX_CHANNELS, compile_kernels
from rasterizer.cuda_pipeline import CudaPipeline, Info, Part, Rendered
from rasterizer.cuda_stages import Images, Incoming, Inputs, Kernels, Lists, Options


class RasterizeCuda(torch.autograd.Function):
    """Colours, alphas and depth sums (sum of weight times z; divide by alpha for the expected depth)."""

    @staticmethod
    def forward(
        ctx: Any, pipeline: CudaPipeline, options: Options, info: Info, differentiable: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        inputs = make_contiguous(tensors)
        rendered = pipeline.render(inputs, options, differentiable=differentiable)
        info.update(rendered.info)
        images = rendered.images
        lists = rendered.parts[0].lists or ()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *images, *lists)
        ctx.pipeline, ctx.options = pipeline, options
        ctx.parts = [part._replace(lists=None) for part in rendered.parts]
        return images.colors, images.alphas, images.depths

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name of ctx
        ctx: Any, *grads: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        inputs, images, lists = Inputs(*saved[:8]), Images(*saved[8:12]), saved[12:]
        parts: list[Part] = ctx.parts
        if lists:
            parts = [parts[0]._replace(lists=Lists(*lists))]
        incoming = Incoming(*(None if grad is None else grad.contiguous() for grad in grads))
        gradients = ctx.pipeline.differentiate(
            inputs, ctx.options, Rendered(images, parts, {}), incoming, ctx.needs_input_grad[4:]
        )
        return None, None, None, None, *gradients


def make_contiguous(tensors: tuple[Tensor | None, ...]) -> Inputs:
    return Inputs(*(None if tensor is None else tensor.contiguous() for tensor in tensors))  # type: ignore[arg-type]


def make_pass(
    pipeline: CudaPipeline, tensors: tuple[Tensor | None, ...], options: Options
) -> tuple[Tensor, Tensor, Tensor | None, Info]:
    """Colours, alphas and depth sums of any number of channels; ``tensors`` in the order of ``Inputs``."""
    info: Info = {}
    colors = tensors[4]
    assert colors is not None
    if colors.shape[-1] > MAX_CHANNELS:
        return make_passes(pipeline, tensors, options)
    # Known only here: within `apply` gradients are always off, and leaves require them also under no_grad.
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return *RasterizeCuda.apply(pipeline, options, info, differentiable, *tensors), info  # type: ignore[misc]


def make_passes(
    pipeline: CudaPipeline, tensors: tuple[Tensor | None, ...], options: Options
) -> tuple[Tensor, Tensor, Tensor | None, Info]:
    """``make_pass`` for more channels than one pass holds: a pass for each group, alphas and depths from the first."""
    inputs = Inputs(*tensors)  # type: ignore[arg-type]
    # A Gaussian with a bad channel must be missing from the other groups too.
    usable = inputs.colors.isfinite().all(-1)
    inputs = inputs._replace(opacities=torch.where(usable, inputs.opacities, torch.nan))
    backgrounds = inputs.backgrounds
    passes = []
    for start in range(0, inputs.colors.shape[-1], MAX_CHANNELS):
        group = inputs._replace(
            colors=inputs.colors[..., start : start + MAX_CHANNELS],
            backgrounds=None if backgrounds is None else backgrounds[..., start : start + MAX_CHANNELS],
        )
        passes.append(make_pass(pipeline, group, replace(options, depth=options.depth and start == 0)))
    _, alphas, depths, info = passes[0]
    return torch.cat([colors for colors, *_ in passes], -1), alphas, depths, info


def rasterize_through(
    pipeline: CudaPipeline, tensors: tuple[Tensor | None, ...], options: Options
) -> tuple[Tensor, Tensor, Tensor | None, Info]:
    """Colours, alphas, expected depths and counts; ``tensors`` in the order of ``Inputs``."""
    images, alphas, depths, info = make_pass(pipeline, tensors, options)
    return images, alphas, None if depths is None else divide_by_alphas(depths, alphas), info


@functools.cache
def load_kernels(device: torch.device, channels: int, depth: bool) -> Kernels:
    """Kernels for a GPU: compiled now or taken from the cache on disk, and loaded into the device's context."""
    library = load_cuda_library()
    image = compile_kernels(torch.cuda.get_device_capability(device), channels, depth)
    torch.zeros(1, device=device)  # binds the context to this thread
    return Kernels(library, library.load(image))


PIPELINE = CudaPipeline(load_kernels)


def rasterize_cuda(  # noqa: PLR0913, PLR0917 - the arguments every backend takes
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
    deterministic: bool = True,
    max_instances: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Info]:
    """Rasterize float32 tensors of one GPU with the CUDA kernels, on the current stream.

    The arguments are those of ``rasterizer.rasterize`` with exactly one batch axis; shapes are not checked here;
    ``inria`` is ``compat="inria"`` there.

    Returns:
        colors [batch, view, height, width, channel], alphas and depths [batch, view, height, width, 1]
        (depths None unless asked for), and the counts that ``rasterizer.Render`` explains.

    Raises:
        BackendError: (a ``ValueError``) where there is no driver, the kernels cannot be compiled, or an image takes
            more memory than its budget.
        ValueError: for other than float32 CUDA tensors.
    """
    tensors = (means, quats, scales, opacities, colors, viewmats, Ks, backgrounds)
    for tensor in tensors:
        if tensor is not None and (tensor.dtype is not torch.float32 or tensor.device.type != "cuda"):
            raise ValueError(f"the CUDA core takes float32 CUDA tensors, got {tensor.dtype} on {tensor.device}")
    options = Options(
        width=width, height=height, sh_degree=sh_degree, near_plane=near_plane, far_plane=far_plane, eps2d=eps2d,
        antialiased=antialiased, depth=depth, inria=inria, deterministic=deterministic, max_instances=max_instances,
    )  # fmt: skip
    return rasterize_through(PIPELINE, tensors, options)
