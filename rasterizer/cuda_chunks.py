"""Cuts a call into chunks that fit into a budget of memory: whole scenes, or views of one scene.

The images of a chunk are consecutive in every tensor of the call, so a chunk needs no copies.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from rasterizer.backend import BackendError

BYTES_VARIABLE = "RASTERIZER_CUDA_BYTES"
# Share of a GPU's memory that the lists of a chunk may take. Of all its memory, not of what is free: gradients of a
# scene whose views fall into several chunks are rounded differently, and a run should not depend on its neighbours.
MEMORY_SHARE = 0.25
EMULATION_BYTES = 1 << 32  # on other devices

# Most that is held at once, while sorting: record, footprint, depth, order and scan of a pair of image and Gaussian...
PAIR_BYTES = 128
# ... key, payload, their sorted copies and places of an instance, a pair of Gaussian and tile.
INSTANCE_BYTES = 48
# Instances per pair assumed before they are counted. Heads of CGS-GAN's size have 2 to 4; a chunk that turns out to
# hold more is cut again, so a wrong guess costs one projection.
EXPECTED_INSTANCES = 4

MAX_INSTANCES = 2**31 - 1
MAX_BATCH = 65535  # scenes along the second axis of a grid
MAX_TILES = 2**31 - 1  # of all images of a chunk


@dataclass(frozen=True)
class Chunk:
    """Scenes ``scene`` to ``scene + scenes``, and of each the views ``view`` to ``view + views``."""

    scene: int
    scenes: int
    view: int
    views: int

    @property
    def images(self) -> int:
        return self.scenes * self.views

    def take_scenes(self, tensor: Tensor) -> Tensor:
        """The part of a tensor [batch, ...] that belongs to the chunk."""
        return tensor[self.scene : self.scene + self.scenes]

    def take_views(self, tensor: Tensor) -> Tensor:
        """The part of a tensor [batch, view, ...] that belongs to the chunk."""
        return self.take_scenes(tensor)[:, self.view : self.view + self.views]

    def cut(self, images: int) -> list[Chunk]:
        """Consecutive chunks of at most ``images`` (>= 1) images."""
        if images >= self.views:
            scenes = range(self.scene, self.scene + self.scenes, images // self.views)
            last = self.scene + self.scenes
            return [Chunk(s, min(images // self.views, last - s), self.view, self.views) for s in scenes]
        views = range(self.view, self.view + self.views, images)
        last = self.view + self.views
        return [
            Chunk(s, 1, v, min(images, last - v)) for s in range(self.scene, self.scene + self.scenes) for v in views
        ]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What an image of a call takes, in bytes.

    Attributes:
        gaussians: per scene.
        tiles: per image.
        record: floats of an instance's gradient record, 0 where no gradient is wanted.
        budget: bytes that the lists of a chunk may take.
    """

    gaussians: int
    tiles: int
    record: int
    budget: int

    def count_bytes(self, images: int, instances: int) -> int:
        """Most bytes held at once for a chunk."""
        per_instance = max(INSTANCE_BYTES, 9 + 4 * self.record)  # entry and mark stay beside the record
        return images * (self.gaussians * PAIR_BYTES + self.tiles * 8) + instances * per_instance

    def cut_call(self, whole: Chunk) -> list[Chunk]:
        """Chunks of a call, before anything is counted."""
        per_image = self.count_bytes(1, EXPECTED_INSTANCES * self.gaussians)
        images = min(self.budget // per_image, MAX_TILES // self.tiles, MAX_BATCH * whole.views, whole.images)
        return whole.cut(max(images, 1))

    def cut_chunk(self, chunk: Chunk, instances: int) -> list[Chunk]:
        """The chunk itself if its counted instances fit, else smaller ones.

        Raises:
            BackendError: for a single image that does not fit.
        """
        needed = self.count_bytes(chunk.images, instances)
        if needed <= self.budget and instances <= MAX_INSTANCES:
            return [chunk]
        if chunk.images > 1:
            fitting = min(chunk.images * self.budget // needed, chunk.images * MAX_INSTANCES // max(instances, 1))
            return chunk.cut(min(max(fitting, 1), chunk.images - 1))
        raise BackendError(
            f"the CUDA rasterizer cannot render view {chunk.view} of scene {chunk.scene}: its {self.gaussians} "
            f"Gaussians meet tiles {instances} times (at most {MAX_INSTANCES}), which takes {needed} bytes of a budget "
            f"of {self.budget}; make the Gaussians smaller or fewer, or raise the budget by {BYTES_VARIABLE}"
        )


def read_budget(device: torch.device) -> int:
    """Bytes that the lists of a chunk may take: ``RASTERIZER_CUDA_BYTES``, or a share of the device's memory.

    Raises:
        BackendError: where the variable is set to something else than a positive integer.
    """
    text = os.environ.get(BYTES_VARIABLE, "")
    if text:
        if not text.isdecimal() or int(text) == 0:
            raise BackendError(f"{BYTES_VARIABLE}: expected a positive number of bytes, got {text!r}")
        return int(text)
    if device.type == "cuda":
        return int(MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return EMULATION_BYTES
