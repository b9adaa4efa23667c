"""What the CPU rasterizer could do at most: arithmetic that cannot be avoided, at the measured rate of multiply-adds.

An evaluated pixel costs about 30 operations forward (exponent 8, power of two 13, blending 9) and 75 backward; a
Gaussian of a view about 625 in both projections; a view moves at least some 210 bytes per Gaussian. Pixels are counted
in blocks of one vector that a Gaussian changes, so that a limit holds for the instruction set in use.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from workloads import Workload

from rasterizer import backend

FORWARD_OPERATIONS, BACKWARD_OPERATIONS = 30, 75  # of a pixel
PROJECTION_OPERATIONS = 625  # of a Gaussian of a view, forward and backward
BYTES = 210  # of a Gaussian of a view, forward and backward
# The limit that was planned with for one 512-pixel view of 240,000 Gaussians: 20 ms at 120 GFLOP/s.
PLANNED_OPERATIONS = 20e-3 * 120e9


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The workload's own numbers, of one call.

    Attributes:
        instances: pairs of tile and Gaussian, per Gaussian and view.
        kept: fraction of them that changed a pixel.
        blocks: blocks of one vector of pixels that a Gaussian changes, per Gaussian and view.
        pixels: of these blocks, per call.
        longest: list of a tile.
        bytes_per_view: memory that a forward and backward pass holds at the same time, per view.
    """

    instances: float
    kept: float
    blocks: float
    pixels: int
    longest: int
    bytes_per_view: int


def count(colors: Tensor, workload: Workload) -> Counts:
    """Read the numbers off the graph of an image that the compiled core has rendered for a backward pass."""
    node: Any = colors.grad_fn
    library, reference = backend.load_library(), ctypes.byref(node.params)
    entries, pixels = ctypes.c_int64(), ctypes.c_int64()
    backend.check(library.rz_count_visits(reference, ctypes.byref(entries), ctypes.byref(pixels)))
    images = workload.batch * workload.views
    pairs = images * workload.gaussians
    lanes = {"avx512": 16, "avx2": 8}.get(library.rz_isa().decode(), 4)
    sizes = (library.rz_view_bytes, library.rz_instance_bytes, library.rz_gradient_bytes)
    return Counts(
        instances=node.params.instances / pairs,
        kept=entries.value / max(node.params.instances, 1),
        blocks=pixels.value / lanes / pairs,
        pixels=pixels.value,
        longest=node.params.longest,
        bytes_per_view=sum(size(reference) for size in sizes) // images,
    )


def find_limit(workload: Workload, counts: Counts, rates: dict[str, float]) -> float:
    """Least milliseconds of a forward and backward pass of the whole workload."""
    pairs = workload.batch * workload.views * workload.gaussians
    operations = (FORWARD_OPERATIONS + BACKWARD_OPERATIONS) * counts.pixels + PROJECTION_OPERATIONS * pairs
    return 1e3 * max(operations / (1e9 * rates["gflops"]), BYTES * pairs / (1e9 * rates["copy_gb_per_s"]))


def find_planned_limit(rates: dict[str, float]) -> float:
    """The planned limit of the workload "mid", milliseconds, scaled to this machine's rate."""
    return 1e3 * PLANNED_OPERATIONS / (1e9 * rates["gflops"])
