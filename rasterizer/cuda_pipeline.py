"""The CUDA core as two functions of tensors: images with the lists they came from, and gradients. No autograd here.

One call is one chunk, unless its lists would exceed a budget of memory (``cuda_chunks.py``). The lists of a call of one
chunk are kept for the backward pass; those of several are not, since together they would exceed the budget, but made
again, with the same bits. A chunk takes one host synchronisation, to learn how many instances it needs room for; a call
with ``max_instances`` takes none, so that it can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rasterizer.backend import BackendError
from rasterizer.cuda_abi import MAX_GAUSSIANS, MOMENTS
from rasterizer.cuda_chunks import MAX_BATCH, MAX_INSTANCES, MAX_TILES, Chunk, Costs, read_budget
from rasterizer.cuda_stages import (
    Gradients,
    Images,
    Incoming,
    Inputs,
    Kernels,
    Lists,
    Options,
    Stages,
    guard_device,
)

MAX_SIDE = 65536  # pixels

Info = dict[str, Any]


class Part(NamedTuple):
    """A chunk that has been rendered, with room for ``slots`` instances; ``lists`` None: not kept."""

    chunk: Chunk
    slots: int
    lists: Lists | None


class Rendered(NamedTuple):
    images: Images
    parts: list[Part]
    info: Info


class CudaPipeline:
    """Renders and differentiates with the kernels that ``find_kernels(device, channels, depth)`` returns."""

    def __init__(self, find_kernels: Callable[[torch.device, int, bool], Kernels]) -> None:
        self.find_kernels = find_kernels

    def render(self, inputs: Inputs, options: Options, *, differentiable: bool = False) -> Rendered:
        """Render all views of all scenes.

        Args:
            inputs: contiguous float32 tensors of one device, with at most 32 channels.
            options: of the call.
            differentiable: whether ``differentiate`` will follow: its memory counts, and lists are kept.

        Raises:
            BackendError: where one image exceeds the budget of memory, or a scene holds too many Gaussians.
        """
        check_sizes(inputs, options)
        with guard_device(inputs.means.device):
            images = allocate_images(inputs, options)
            if options.max_instances is not None:
                return self.render_capacity(inputs, options, images, options.max_instances)
            return self.render_chunks(inputs, options, images, differentiable)

    def render_chunks(self, inputs: Inputs, options: Options, images: Images, differentiable: bool) -> Rendered:
        """Render chunk by chunk, cutting those that turn out to hold too many instances."""
        whole, costs = find_whole(inputs), find_costs(inputs, options, differentiable)
        pending, parts, sums = costs.cut_call(whole), [], [0, 0, 0]
        while pending:
            chunk = pending.pop(0)
            keep = differentiable and chunk == whole
            # A function of its own: what a chunk needed is free before the next asks for memory.
            fitting, part, counters = self.render_chunk(inputs, options, images, chunk, costs, keep=keep)
            if part is None:
                pending = fitting + pending
                continue
            parts.append(part)
            sums = [a + b for a, b in zip(sums, counters)]
        return Rendered(images, parts, describe(sums, inputs))

    def render_chunk(
        self, inputs: Inputs, options: Options, images: Images, chunk: Chunk, costs: Costs, *, keep: bool
    ) -> tuple[list[Chunk], Part | None, list[int]]:
        """Render a chunk if its instances fit, and keep its lists if told to.

        Returns:
            the chunks to cut it into, what was rendered (None where it must be cut), and its counters.
        """
        stages = self.start(inputs, options, chunk)
        counted = stages.project()
        # The one host synchronisation of a chunk.
        counters: list[int] = counted.counters.tolist()
        fitting = costs.cut_chunk(chunk, counters[0])
        if fitting != [chunk]:
            return fitting, None, counters
        lists = stages.list(counted, counters[0])
        stages.blend(lists, images.take(chunk))
        return fitting, Part(chunk, counters[0], lists if keep else None), counters

    def render_capacity(self, inputs: Inputs, options: Options, images: Images, slots: int) -> Rendered:
        """Render with room for a fixed number of instances, without a look at how many there are."""
        stages = self.start(inputs, options, find_whole(inputs))
        counted = stages.project()
        lists = stages.list(counted, slots)
        stages.blend(lists, images)
        info = describe(list(counted.counters.unbind()), inputs)
        part = Part(find_whole(inputs), slots, lists)
        return Rendered(images, [part], {**info, "overflowed": info["instances"] > slots})

    def start(self, inputs: Inputs, options: Options, chunk: Chunk) -> Stages:
        kernels = self.find_kernels(inputs.means.device, inputs.colors.shape[-1], options.depth)
        return Stages(kernels, inputs.take(chunk), options)

    def differentiate(
        self, inputs: Inputs, options: Options, rendered: Rendered, incoming: Incoming, wanted: tuple[bool, ...]
    ) -> Gradients:
        """Gradients of the inputs that are ``wanted``, given those of colours, alphas and depth sums.

        Args:
            inputs: as they were rendered.
            options: as they were rendered.
            rendered: what ``render`` returned with ``differentiable``.
            incoming: gradients of the images.
            wanted: in the order of ``Inputs``.
        """
        with guard_device(inputs.means.device):
            chosen = (tensor if want else None for tensor, want in zip(inputs, wanted))
            outgoing = Gradients(*(None if tensor is None else torch.empty_like(tensor) for tensor in chosen))
            if any(tensor is not None for tensor in outgoing[:7]):
                for part in rendered.parts:
                    self.differentiate_part(inputs, options, rendered.images, part, incoming, outgoing)
            if outgoing.backgrounds is not None:
                write_backgrounds(rendered.images.alphas, incoming.colors, outgoing.backgrounds)
        return outgoing

    def differentiate_part(
        self, inputs: Inputs, options: Options, images: Images, part: Part, incoming: Incoming, outgoing: Gradients
    ) -> None:
        """Write the gradients of a chunk into ``outgoing``, or add them: views of a scene come in order."""
        chunk = part.chunk
        stages = self.start(inputs, options, chunk)
        lists = part.lists or stages.list(stages.project(), part.slots)
        own = outgoing.take(chunk)
        cameras = stages.differentiate(
            lists, part.slots, images.take(chunk), incoming.take(chunk), own, accumulate=chunk.view > 0
        )
        if cameras is not None:
            write_cameras(cameras, own)


def find_whole(inputs: Inputs) -> Chunk:
    """The whole call as one chunk."""
    return Chunk(0, inputs.viewmats.shape[0], 0, inputs.viewmats.shape[1])


def find_costs(inputs: Inputs, options: Options, differentiable: bool) -> Costs:
    tiles_x, tiles_y = options.tiles
    return Costs(
        gaussians=inputs.means.shape[1],
        tiles=tiles_x * tiles_y,
        record=MOMENTS + inputs.colors.shape[-1] + options.depth if differentiable else 0,
        budget=read_budget(inputs.means.device) if options.max_bytes is None else options.max_bytes,
    )


def check_sizes(inputs: Inputs, options: Options) -> None:
    """Refuse what no cutting into chunks can serve."""
    gaussians = inputs.means.shape[1]
    if gaussians > MAX_GAUSSIANS:
        raise BackendError(
            f"the CUDA rasterizer serves at most {MAX_GAUSSIANS} Gaussians per scene, got {gaussians}; "
            "render the scene in fewer Gaussians"
        )
    if max(options.width, options.height) > MAX_SIDE:
        raise BackendError(
            f"the CUDA rasterizer serves images of at most {MAX_SIDE} pixels per side, got "
            f"{options.width} x {options.height}; render parts of the image, moving cx and cy of Ks"
        )
    slots, whole = options.max_instances, find_whole(inputs)
    if slots is None:
        return
    if not 0 <= slots <= MAX_INSTANCES:
        raise BackendError(f"max_instances: expected 0 to {MAX_INSTANCES}, got {slots}")
    tiles_x, tiles_y = options.tiles
    if whole.scenes > MAX_BATCH or whole.images * tiles_x * tiles_y > MAX_TILES:
        raise BackendError(
            f"max_instances: a call with a fixed capacity is not cut into parts, and {whole.images} images of "
            f"{options.width} x {options.height} pixels are too many for one; render fewer per call"
        )


def allocate_images(inputs: Inputs, options: Options) -> Images:
    """Memory for the images of a call, undefined."""
    like = inputs.means
    shape = (*inputs.viewmats.shape[:2], options.height, options.width)
    return Images(
        colors=like.new_empty((*shape, inputs.colors.shape[-1])),
        alphas=like.new_empty((*shape, 1)),
        depths=like.new_empty((*shape, 1)) if options.depth else None,
        last_ids=like.new_empty(shape, dtype=torch.int32),
    )


def describe(counters: list[Any], inputs: Inputs) -> Info:
    """``Render.info`` of instances, pairs that are not finite and pairs drawn: numbers or tensors."""
    instances, nonfinite, drawn = counters
    pairs = find_whole(inputs).images * inputs.means.shape[1]
    return {"instances": instances, "culled": pairs - drawn, "nonfinite": nonfinite, "backend": "cuda"}


def write_cameras(cameras: Float[Tensor, "batch view 16"], outgoing: Gradients) -> None:
    """Write gradients of rotation (row-major), translation, fx, fy, cx, cy as those of matrices."""
    if outgoing.viewmats is not None:
        outgoing.viewmats[..., 3, :] = 0
        outgoing.viewmats[..., :3, :3] = cameras[..., :9].unflatten(-1, (3, 3))
        outgoing.viewmats[..., :3, 3] = cameras[..., 9:12]
    if outgoing.intrinsics is not None:
        outgoing.intrinsics.zero_()
        for place, (row, column) in enumerate(((0, 0), (1, 1), (0, 2), (1, 2)), start=12):
            outgoing.intrinsics[..., row, column] = cameras[..., place]


def write_backgrounds(
    alphas: Float[Tensor, "batch view height width 1"],
    v_colors: Float[Tensor, "batch view height width channel"] | None,
    v_backgrounds: Float[Tensor, "batch view channel"],
) -> None:
    """Write the gradients of backgrounds, which show through by 1 - alpha."""
    if v_colors is None:
        v_backgrounds.zero_()
    else:
        v_backgrounds.copy_((v_colors * (1 - alphas)).sum((2, 3)))
