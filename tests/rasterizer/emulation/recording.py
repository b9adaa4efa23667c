"""Records the launches of a pass, with all memory before and after, so that they can be replayed elsewhere.

``RecordingLibrary`` stands where the launcher's library does, launches with it, and copies what each stage may read or
write, by the sizes that ``csrc/cuda/params.h`` gives. Pointers that are not a stage's own are null in the recording.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE
from rasterizer.cuda_abi import (
    CAMERA_FLOATS,
    FOOTPRINT_FLOATS,
    MOMENTS,
    POINTERS,
    RECORD_FLOATS,
    CudaLibrary,
    CudaParams,
    Stage,
)
from rasterizer.cuda_autograd import rasterize_through
from rasterizer.cuda_pipeline import CudaPipeline
from rasterizer.cuda_stages import Inputs, Kernels, Options
from tests.rasterizer.emulation.build import run_program

SCENE = ("means", "quats", "scales", "opacities", "colors", "viewmats", "intrinsics")
LISTS = ("records", "colors", "entries", "tile_ranges", "backgrounds")
IMAGES = ("out_colors", "out_alphas", "out_depths", "last_ids")
# What a stage reads or writes.
USED: dict[Stage, tuple[str, ...]] = {
    Stage.PROJECT: (*SCENE, "records", "footprints", "sort_depths", "counts", "totals"),
    Stage.EMIT: ("records", "footprints", "counts", "order", "ends", "first_slots", "keys", "payloads"),
    Stage.LIST: ("payloads", "sorted_keys", "sorted_slots", "entries", "tile_ranges"),
    Stage.BLEND: (*LISTS, *IMAGES),
    Stage.BLEND_BACKWARD: (*LISTS, *IMAGES, "v_colors", "v_alphas", "v_depths", "touched", "gradients"),
    Stage.PROJECT_BACKWARD: (
        *SCENE, "records", "counts", "first_slots", "touched", "gradients",
        "v_means", "v_quats", "v_scales", "v_opacities", "v_features", "camera_partials",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    stage: Stage
    params: bytes  # pointers replaced by 1 + index into the buffers, 0 for null
    names: tuple[str, ...]
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]


class RecordingLibrary:
    """``CudaLibrary`` with a memory: ``launches`` in order, each with its buffers."""

    def __init__(self, library: CudaLibrary) -> None:
        self.library = library
        self.launches: list[Launch] = []

    def launch(self, module: int, stage: Stage, params: CudaParams, stream: int) -> None:
        sizes = measure_buffers(params, self.camera_blocks(params))
        names = tuple(name for name in USED[stage] if getattr(params, name) is not None)
        before = copy_buffers(params, names, sizes)
        self.library.launch(module, stage, params, stream)
        portable = CudaParams.from_buffer_copy(params)
        for name in POINTERS:
            setattr(portable, name, names.index(name) + 1 if name in names else None)
        after = copy_buffers(params, names, sizes)
        self.launches.append(Launch(stage, bytes(portable), names, before, after))

    def camera_blocks(self, params: CudaParams) -> int:
        return self.library.camera_blocks(params)


def copy_buffers(params: CudaParams, names: tuple[str, ...], sizes: dict[str, int]) -> tuple[bytes, ...]:
    return tuple(ctypes.string_at(getattr(params, name), sizes[name]) for name in names)


def measure_buffers(params: CudaParams, camera_blocks: int) -> dict[str, int]:
    """Bytes behind every pointer."""
    p = params
    scene, images = p.batch * p.gaussians, p.batch * p.views
    pairs, tiles, pixels = images * p.gaussians, images * p.tiles_x * p.tiles_y, images * p.width * p.height
    features = 3 * p.sh_coefficients or p.channels
    gradients = MOMENTS + p.channels + p.depth
    owners = pairs if p.atomics else p.instances
    floats = {
        "means": 3 * scene, "quats": 4 * scene, "scales": 3 * scene, "opacities": scene, "colors": features * scene,
        "viewmats": 16 * images, "intrinsics": 9 * images, "backgrounds": p.channels * images,
        "records": RECORD_FLOATS * pairs, "footprints": FOOTPRINT_FLOATS * pairs, "sort_depths": pairs,
        "out_colors": p.channels * pixels, "out_alphas": pixels, "out_depths": pixels,
        "v_colors": p.channels * pixels, "v_alphas": pixels, "v_depths": pixels, "gradients": gradients * owners,
        "v_means": 3 * scene, "v_quats": 4 * scene, "v_scales": 3 * scene, "v_opacities": scene,
        "v_features": features * scene, "camera_partials": p.batch * camera_blocks * p.views * CAMERA_FLOATS,
    }  # fmt: skip
    integers = {
        "counts": pairs, "first_slots": pairs, "payloads": p.instances, "entries": 2 * p.instances,
        "tile_ranges": 2 * tiles, "last_ids": pixels,
    }  # fmt: skip
    long_integers = {"totals": 2, "order": pairs, "ends": pairs, "sorted_slots": p.instances}
    sizes = {name: 4 * count for name, count in (floats | integers).items()}
    sizes |= {name: 8 * count for name, count in long_integers.items()}
    return sizes | {"keys": p.key_bytes * p.instances, "sorted_keys": p.key_bytes * p.instances, "touched": owners}


def write_recording(path: Path, launches: list[Launch]) -> None:
    """In the format of ``replay.cpp``."""
    parts = [b"RZLAUNCH", struct.pack("<q", len(launches))]
    for launch in launches:
        parts += [struct.pack("<qq", launch.stage, len(launch.before)), launch.params]
        for data in launch.before:
            parts += [struct.pack("<q", len(data)), data]
    path.write_bytes(b"".join(parts))


def replay(
    program: Path,
    launches: list[Launch],
    folder: Path,
    *,
    order: int = 0,
    seed: int = 0,
    without: tuple[str, int] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a program of ``build_replay``, ``without`` a barrier (file, line); ``folder / "after"`` gets the results."""
    write_recording(folder / "before", launches)
    command = [str(program), str(folder / "before"), str(folder / "after"), str(order), str(seed)]
    command += [] if without is None else [without[0], str(without[1])]
    return run_program(command)


def find_differences(launches: list[Launch], folder: Path) -> list[str]:
    """Buffers that the replay left with other bits than the recorded launches did, as "STAGE name"."""
    results = (folder / "after").read_bytes()
    differences, at = [], 0
    for launch in launches:
        for name, expected in zip(launch.names, launch.after):
            if results[at : at + len(expected)] != expected:
                differences.append(f"{launch.stage.name} {name}")
            at += len(expected)
    assert at == len(results)
    return differences


def record_pass(
    library: CudaLibrary, arguments: dict[str, Tensor], *, width: int, height: int, **options: Any
) -> list[Launch]:
    """Renders a scene (arguments of ``rasterize_cpu``) and differentiates a random loss of all outputs."""
    recorder = RecordingLibrary(library)
    kernels = Kernels(recorder, library.load(b""))  # type: ignore[arg-type]
    pipeline = CudaPipeline(lambda device, channels, depth: kernels)
    leaves: dict[str, Any] = {name: tensor.clone().requires_grad_() for name, tensor in arguments.items()}
    leaves["intrinsics"] = leaves.pop("Ks")
    defaults = {
        "sh_degree": None, "near_plane": DEFAULT_NEAR_PLANE, "far_plane": DEFAULT_FAR_PLANE, "eps2d": DEFAULT_EPS2D,
        "antialiased": False, "depth": True,
    }  # fmt: skip
    call = Options(width=width, height=height, **(defaults | options))
    colors, alphas, depths, _ = rasterize_through(pipeline, Inputs(**{"backgrounds": None, **leaves}), call)
    random = torch.Generator().manual_seed(7)
    outputs = [output for output in (colors, alphas, depths) if output is not None]
    losses = [(output * torch.randn(output.shape, generator=random)).sum() for output in outputs]
    torch.stack(losses).sum().backward()
    return recorder.launches
