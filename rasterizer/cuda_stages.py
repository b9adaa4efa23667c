"""The stages of one chunk: what each reads and writes (``csrc/cuda/params.h``), allocated by torch, launched in order.

The same code drives a GPU and, in tests, the kernels emulated on the CPU: tensors live wherever the inputs do, and
``Kernels`` is whatever launches there.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rasterizer.constants import TILE_SIZE
from rasterizer.cuda_abi import (
    CAMERA_FLOATS,
    FOOTPRINT_FLOATS,
    MOMENTS,
    RECORD_FLOATS,
    CudaLibrary,
    CudaParams,
    Stage,
)
from rasterizer.cuda_chunks import Chunk
from rasterizer.cuda_sorting import choose_key_type, order_by_depth, order_by_tile, store_key

SCENE_GRADIENTS = ("means", "quats", "scales", "opacities", "features")


class Kernels(NamedTuple):
    """Kernels compiled for one device, one number of channels, and with or without depth."""

    library: CudaLibrary
    module: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a call is, besides its tensors; ``rasterizer.rasterize`` explains the names.

    Attributes:
        max_bytes: of the lists of a chunk; None: see ``cuda_chunks.read_budget``.
    """

    width: int
    height: int
    sh_degree: int | None
    near_plane: float
    far_plane: float
    eps2d: float
    antialiased: bool
    depth: bool
    inria: bool = False
    deterministic: bool = True
    max_instances: int | None = None
    max_bytes: int | None = None

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along x and y."""
        return -(-self.width // TILE_SIZE), -(-self.height // TILE_SIZE)


class Inputs(NamedTuple):
    """Contiguous float32 tensors of one device, named as in ``CudaParams``."""

    means: Tensor  # [batch, n, 3]
    quats: Tensor  # [batch, n, 4]
    scales: Tensor  # [batch, n, 3]
    opacities: Tensor  # [batch, n]
    colors: Tensor  # [batch, n, channel] or [batch, n, k, 3]
    viewmats: Tensor  # [batch, view, 4, 4]
    intrinsics: Tensor  # [batch, view, 3, 3]
    backgrounds: Tensor | None  # [batch, view, channel]

    def take(self, chunk: Chunk) -> Inputs:
        scene = map(chunk.take_scenes, self[:5])
        return Inputs(*scene, *(None if t is None else chunk.take_views(t) for t in self[5:]))  # type: ignore[arg-type]


class Images(NamedTuple):
    """What blending writes, for all views of a call or of a chunk."""

    colors: Tensor  # [batch, view, height, width, channel]
    alphas: Tensor  # [batch, view, height, width, 1]
    depths: Tensor | None  # [batch, view, height, width, 1], sums of weight times z
    last_ids: Tensor  # [batch, view, height, width] int32

    def take(self, chunk: Chunk) -> Images:
        return Images(*(None if t is None else chunk.take_views(t) for t in self))  # type: ignore[arg-type]


class Incoming(NamedTuple):
    """Contiguous gradients of the images of a call or of a chunk, None where there is none."""

    colors: Tensor | None
    alphas: Tensor | None
    depths: Tensor | None

    def take(self, chunk: Chunk) -> Incoming:
        return Incoming(*(None if t is None else chunk.take_views(t) for t in self))


class Counted(NamedTuple):
    """Projected Gaussians, ordered by depth and counted, before there is room for their instances."""

    records: Tensor  # [pairs, RECORD_FLOATS]
    footprints: Tensor  # [pairs, FOOTPRINT_FLOATS]
    counts: Tensor  # [pairs] int32
    order: Tensor  # [images, n] int64
    ends: Tensor  # [pairs] int64
    counters: Tensor  # [3] int64: instances, pairs that are not finite, pairs that are drawn


class Lists(NamedTuple):
    """What blending reads, in both directions."""

    records: Tensor  # [pairs, RECORD_FLOATS]
    counts: Tensor  # [pairs] int32
    first_slots: Tensor  # [pairs] int32
    entries: Tensor  # [instances, 2] int32
    tile_ranges: Tensor  # [images * tiles, 2] int32


class Gradients(NamedTuple):
    """Gradients of the inputs, None where not wanted; named as in ``CudaParams`` with a leading ``v_``."""

    means: Tensor | None
    quats: Tensor | None
    scales: Tensor | None
    opacities: Tensor | None
    features: Tensor | None
    viewmats: Tensor | None
    intrinsics: Tensor | None
    backgrounds: Tensor | None

    def take(self, chunk: Chunk) -> Gradients:
        scene = (None if t is None else chunk.take_scenes(t) for t in self[:5])
        return Gradients(*scene, *(None if t is None else chunk.take_views(t) for t in self[5:]))


def fill_params(inputs: Inputs, options: Options) -> CudaParams:
    """Sizes and options of a chunk; ``inputs`` are its own."""
    tiles_x, tiles_y = options.tiles
    degree = options.sh_degree
    return CudaParams(
        batch=inputs.viewmats.shape[0], views=inputs.viewmats.shape[1], gaussians=inputs.means.shape[1],
        channels=inputs.colors.shape[-1], sh_coefficients=0 if degree is None else inputs.colors.shape[2],
        sh_degree=degree or 0, width=options.width, height=options.height, tiles_x=tiles_x, tiles_y=tiles_y,
        antialiased=options.antialiased, depth=options.depth, inria=options.inria,
        atomics=not options.deterministic, near_plane=options.near_plane, far_plane=options.far_plane,
        eps2d=options.eps2d,
    )  # fmt: skip


def guard_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Make a GPU the current one; nothing to do on the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


class Stages:
    """The stages of one chunk, in the order in which to call them, within ``guard_device``.

    Memory that a stage leaves behind may be freed as soon as the next has been launched: the allocator of torch hands
    it on in the order of the stream.
    """

    def __init__(self, kernels: Kernels, inputs: Inputs, options: Options) -> None:
        self.kernels, self.options = kernels, options
        self.inputs = inputs  # kept alive: the parameters hold addresses only
        self.params = fill_params(inputs, options)
        self.device = inputs.means.device
        self.images = self.params.batch * self.params.views
        self.pairs = self.images * self.params.gaussians
        self.tiles = self.images * self.params.tiles_x * self.params.tiles_y
        self.key_type = choose_key_type(self.tiles)
        self.params.key_bytes = self.key_type.itemsize
        self.point(**inputs._asdict())

    def point(self, **tensors: Tensor | None) -> None:
        """Set pointers of the parameters by name."""
        for name, tensor in tensors.items():
            assert tensor is None or tensor.is_contiguous(), name
            setattr(self.params, name, None if tensor is None else tensor.data_ptr())

    def launch(self, stage: Stage) -> None:
        stream = torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0
        self.kernels.library.launch(self.kernels.module, stage, self.params, stream)

    def empty(self, rows: int, *row: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Undefined memory; at least one row, so that there is an address also where nothing is stored."""
        return torch.empty((max(rows, 1), *row), dtype=dtype, device=self.device)

    def fill(self, value: int, rows: int, *row: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full((max(rows, 1), *row), value, dtype=dtype, device=self.device)

    def project(self) -> Counted:
        """Project all Gaussians into all views, order them by depth, and count the tiles they meet."""
        gaussians = self.params.gaussians
        # Filled before the launch: a call of the CUDA runtime binds the device's context to this thread.
        totals = self.fill(0, 2, dtype=torch.int64)
        records, footprints = self.empty(self.pairs, RECORD_FLOATS), self.empty(self.pairs, FOOTPRINT_FLOATS)
        counts = self.empty(self.pairs, dtype=torch.int32)
        sort_depths = self.empty(self.images, gaussians)
        self.point(records=records, footprints=footprints, counts=counts, sort_depths=sort_depths, totals=totals)
        if self.pairs > 0:
            self.launch(Stage.PROJECT)
        order = order_by_depth(sort_depths)
        ends = counts[: self.pairs].view(order.shape).gather(1, order).flatten().cumsum(0, dtype=torch.int64)
        instances = ends[-1:] if self.pairs > 0 else totals[:1]
        return Counted(records, footprints, counts, order, ends, torch.cat([instances, totals]))

    def list(self, counted: Counted, slots: int) -> Lists:
        """Write an instance for every pair of Gaussian and tile, and sort them by tile; ``slots`` bounds them."""
        self.params.instances = slots if self.pairs > 0 else 0
        first_slots = self.empty(self.pairs, dtype=torch.int32)
        entries = self.empty(slots, 2, dtype=torch.int32)
        tile_ranges = self.fill(0, self.tiles, 2, dtype=torch.int32)
        keys = self.fill(store_key(self.tiles, self.key_type), slots, dtype=self.key_type)
        payloads = self.empty(slots, dtype=torch.int32)
        self.point(
            records=counted.records, footprints=counted.footprints, counts=counted.counts, order=counted.order,
            ends=counted.ends, first_slots=first_slots, keys=keys, payloads=payloads, entries=entries,
            tile_ranges=tile_ranges,
        )  # fmt: skip
        if self.pairs > 0:
            self.launch(Stage.EMIT)
        if self.params.instances > 0:
            sorted_keys, sorted_slots = order_by_tile(keys)
            self.point(sorted_keys=sorted_keys, sorted_slots=sorted_slots)
            self.launch(Stage.LIST)
        return Lists(counted.records, counted.counts, first_slots, entries, tile_ranges)

    def blend(self, lists: Lists, images: Images) -> None:
        """Blend the lists of the tiles into ``images``."""
        self.point(**lists._asdict())
        self.point_images(images)
        self.launch(Stage.BLEND)

    def point_images(self, images: Images) -> None:
        self.point(
            out_colors=images.colors, out_alphas=images.alphas, out_depths=images.depths, last_ids=images.last_ids
        )

    def differentiate(
        self, lists: Lists, slots: int, images: Images, incoming: Incoming, outgoing: Gradients, *, accumulate: bool
    ) -> Tensor | None:
        """Write the gradients of the Gaussians; return those of the cameras, [batch, view, CAMERA_FLOATS] float64.

        Args:
            lists: what the images were blended from.
            slots: instances that there was room for.
            images: the images.
            incoming: gradients of the images.
            outgoing: where gradients go; cameras are computed if ``viewmats`` or ``intrinsics`` is not None.
            accumulate: add to ``outgoing`` instead: the scene's earlier views are in it.
        """
        batch, views = self.params.batch, self.params.views
        self.params.instances, self.params.accumulate = slots, accumulate
        owners = slots if self.options.deterministic else self.pairs
        floats = MOMENTS + self.params.channels + int(self.options.depth)
        # Filled before the launch, as in `project`.
        touched = self.fill(0, owners, dtype=torch.uint8)
        records = self.empty(owners, floats) if self.options.deterministic else self.fill(0, owners, floats)
        cameras = None
        if outgoing.viewmats is not None or outgoing.intrinsics is not None:
            cameras = self.empty(batch, self.kernels.library.camera_blocks(self.params), views, CAMERA_FLOATS)
        self.point(**lists._asdict())
        self.point_images(images)
        self.point(v_colors=incoming.colors, v_alphas=incoming.alphas, v_depths=incoming.depths)
        self.point(touched=touched, gradients=records, camera_partials=cameras)
        self.point(**{f"v_{name}": tensor for name, tensor in outgoing._asdict().items() if name in SCENE_GRADIENTS})
        if self.pairs > 0:
            self.launch(Stage.BLEND_BACKWARD)
            self.launch(Stage.PROJECT_BACKWARD)
        return None if cameras is None else cameras.sum(1, dtype=torch.float64)
