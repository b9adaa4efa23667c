"""The CUDA core against gsplat: the same tensors, the same run, times by CUDA events.

Usage: ``python benchmarks/rasterizer_cuda.py [--workloads small mid] [--repeats 50] [--out FILE]`` on a machine with a
GPU; gsplat is compared where it is installed (it compiles itself at its first use, in minutes). Prints a table and
writes ``benchmarks/results/rasterizer_cuda.json``: milliseconds of the forward pass and of both passes, ratios, the
numbers of the workload itself, and the GPU's ceilings as measured in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from workloads import WORKLOADS, Workload

from rasterizer import rasterize
from rasterizer.cuda_autograd import PIPELINE
from rasterizer.cuda_stages import Inputs, Options

RESULTS = Path(__file__).parent / "results" / "rasterizer_cuda.json"
BATCHES = ((1, 1), (8, 4))
WARM_UP = 5
DEVICE = "cuda"
LEAVES = ("means", "quats", "scales", "opacities", "colors")

Scene = dict[str, Any]
Render = Callable[[Scene, int], Tensor]


def load_scene(workload: Workload) -> Scene:
    """The workload's tensors on the GPU; those of Gaussians are leaves that require gradients."""
    scene = workload.scene()
    return {name: tensor.detach().to(DEVICE).requires_grad_(name in LEAVES) for name, tensor in scene.items()}


def render_ours(scene: Scene, size: int, *, deterministic: bool = True) -> Tensor:
    return rasterize(**scene, width=size, height=size, deterministic=deterministic).colors


def render_atomic(scene: Scene, size: int) -> Tensor:
    return render_ours(scene, size, deterministic=False)


def render_gsplat(scene: Scene, size: int) -> Tensor:
    from gsplat import rasterization  # pyright: ignore[reportMissingImports] - an optional extra

    return rasterization(**scene, width=size, height=size, packed=False)[0]


def time_passes(render: Render, scene: Scene, size: int, repeats: int) -> dict[str, float]:
    """Medians in milliseconds of the forward pass without gradients, and of both passes; peak memory in MiB."""
    leaves = [scene[name] for name in LEAVES]
    v_colors = torch.rand_like(render(scene, size))

    def forward() -> None:
        with torch.no_grad():
            render(scene, size)

    def both() -> None:
        torch.autograd.grad(render(scene, size), leaves, grad_outputs=v_colors)

    torch.cuda.reset_peak_memory_stats()
    row = {"forward_ms": time_call(forward, repeats), "both_ms": time_call(both, repeats)}
    return {**row, "peak_mib": torch.cuda.max_memory_allocated() / 2**20}


def time_call(call: Callable[[], object], repeats: int) -> float:
    """Median of milliseconds between CUDA events around single calls."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def measure_ceilings(repeats: int) -> dict[str, float]:
    """Copy bandwidth in GB/s (read and written bytes) and fp32 multiply-adds of a matrix product in TFLOP/s."""
    source, target = torch.rand(1 << 28, device=DEVICE), torch.empty(1 << 28, device=DEVICE)
    copy = time_call(lambda: target.copy_(source), repeats)
    torch.backends.cuda.matmul.allow_tf32 = False
    a = torch.rand(8192, 8192, device=DEVICE)
    product = time_call(lambda: torch.mm(a, a), max(repeats // 5, 3))
    return {"copy_gb_per_s": 2 * (1 << 30) / copy / 1e6, "fp32_tflops": 2 * 8192**3 / product / 1e9}


def describe_workload(scene: Scene, size: int) -> dict[str, float]:
    """Instances and 8x4 sub-tiles per Gaussian and view, and the share of instances that some pixel saw."""
    names = (*LEAVES, "viewmats", "Ks", "backgrounds")
    inputs = Inputs._make(scene[name].detach() for name in names)
    options = Options(
        width=size, height=size, sh_degree=None, near_plane=0.01, far_plane=1e10, eps2d=0.3, antialiased=False,
        depth=False,
    )  # fmt: skip
    rendered = PIPELINE.render(inputs, options, differentiable=True)
    pairs = scene["viewmats"].shape[0] * scene["viewmats"].shape[1] * scene["means"].shape[1]
    row = {"instances_per_gaussian": rendered.info["instances"] / pairs}
    lists = rendered.parts[0].lists
    if lists is not None:
        masks = (lists.entries[:, 0] >> 24) & 255
        bits = sum(((masks >> bit) & 1).sum() for bit in range(8))
        row["subtiles_per_gaussian"] = float(bits) / pairs
        lengths = lists.tile_ranges[:, 1] - lists.tile_ranges[:, 0]
        row["longest_list"] = float(lengths.max())
    return row


def compare(workload: Workload, renders: dict[str, Render], repeats: int) -> dict[str, Any]:
    """One row: every implementation on one size."""
    scene, size = load_scene(workload), workload.size
    row: dict[str, Any] = {
        "workload": workload.name, "size": size, "gaussians": workload.gaussians, "batch": workload.batch,
        "views": workload.views, **describe_workload(scene, size),
    }  # fmt: skip
    for name, render in renders.items():
        try:
            row[name] = time_passes(render, scene, size, repeats)
        except torch.OutOfMemoryError:
            row[name] = None  # the table says so
        torch.cuda.empty_cache()
    return row


def show(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Print the table: milliseconds, and how many times faster than gsplat."""
    table = Table("workload", "B x V", *(f"{name} fwd / both ms" for name in names), "gsplat / ours", title="CUDA")
    for row in rows:
        cells = [
            "out of memory" if row[n] is None else f"{row[n]['forward_ms']:.2f} / {row[n]['both_ms']:.2f}"
            for n in names
        ]
        theirs, ours = row.get("gsplat"), row["ours"]
        ratio = f"{theirs['both_ms'] / ours['both_ms']:.2f}x" if theirs and ours else ""
        table.add_row(row["workload"], f"{row['batch']} x {row['views']}", *cells, ratio)
    Console(width=140).print(table)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=["small", "mid", "large", "huge"], choices=sorted(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA device, and torch sees none")
    started = time.perf_counter()
    renders: dict[str, Render] = {"ours": render_ours, "atomic": render_atomic}
    if importlib.util.find_spec("gsplat"):
        renders["gsplat"] = render_gsplat
    ceilings = measure_ceilings(arguments.repeats)
    print(f"ceilings: {ceilings['copy_gb_per_s']:.0f} GB/s copied, {ceilings['fp32_tflops']:.1f} TFLOP/s in fp32")
    found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, **ceilings, "rows": []}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.workloads:
        for batch, views in BATCHES:
            workload = replace(WORKLOADS[name], batch=batch, views=views)
            found["rows"].append(compare(workload, renders, arguments.repeats))
            show(found["rows"][-1:], list(renders))
            # After every row: what has been measured must not be lost with the machine.
            arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    show(found["rows"], list(renders))
    print(f"wrote {arguments.out} after {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
