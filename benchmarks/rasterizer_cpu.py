"""The compiled CPU core against the plain torch reference: forward and backward, same tensors, same run.

Usage: ``python benchmarks/rasterizer_cpu.py [--threads 2] [--repeats 20] [--workloads training mid]``. Prints a
table and writes ``benchmarks/results/rasterizer_cpu.json``. The reference runs once per workload that is small
enough for it; at 512 px and 240,000 Gaussians that takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from workloads import WORKLOADS, Workload

from rasterizer import backend
from rasterizer.autograd import rasterize_cpu
from rasterizer.reference import rasterize_reference

RESULTS = Path(__file__).parent / "results" / "rasterizer_cpu.json"
LEAST_RATIO = 100.0
REFERENCE_WORKLOADS = ("training", "mid")  # the others say nothing new for many minutes


def measure(function: Callable[..., Any], workload: Workload, repeats: int) -> dict[str, float]:
    """Milliseconds of the forward and the backward pass: medians, and the best sum. The first call is not counted."""
    scene = workload.scene()
    leaves = [tensor for tensor in scene.values() if tensor.requires_grad]
    forward, backward = [], []
    for _ in range(repeats + (repeats > 1)):
        start = time.perf_counter()
        colors, *_ = function(**scene, width=workload.size, height=workload.size)
        middle = time.perf_counter()
        torch.autograd.grad(colors, leaves, grad_outputs=torch.ones_like(colors))
        end = time.perf_counter()
        forward.append(1e3 * (middle - start))
        backward.append(1e3 * (end - middle))
    forward, backward = forward[-repeats:], backward[-repeats:]
    return {
        "forward_ms": statistics.median(forward),
        "backward_ms": statistics.median(backward),
        "best_ms": min(a + b for a, b in zip(forward, backward)),
    }


def compare(workload: Workload, repeats: int) -> dict[str, Any]:
    """One row of the table: the core on every instruction set, and the reference."""
    scene = workload.scene()
    with torch.no_grad():
        _, _, _, info = rasterize_cpu(**scene, width=workload.size, height=workload.size)
    pairs = workload.batch * workload.views * workload.gaussians
    row: dict[str, Any] = {
        "pixels": workload.size, "gaussians": workload.gaussians, "batch": workload.batch,
        "views": workload.views, "instances_per_gaussian": int(info["instances"]) / pairs, "cpu": {},
    }  # fmt: skip
    for isa in backend.available_isas():
        backend.select_isa(isa)
        row["cpu"][isa] = measure(rasterize_cpu, workload, repeats)
    backend.select_isa()
    if workload.name in REFERENCE_WORKLOADS:
        reference = measure(rasterize_reference, workload, 1)
        fastest = row["cpu"][backend.available_isas()[0]]
        row["reference"] = reference
        row["ratio"] = (reference["forward_ms"] + reference["backward_ms"]) / (
            fastest["forward_ms"] + fastest["backward_ms"]
        )
    return row


def print_row(name: str, row: dict[str, Any]) -> None:
    size = f"{row['batch']}x{row['views']} of {row['pixels']} px, {row['gaussians']} Gaussians"
    lines = [(f"cpu {isa}", times) for isa, times in row["cpu"].items()]
    lines += [("reference", row["reference"])] if "reference" in row else []
    for label, times in lines:
        total = times["forward_ms"] + times["backward_ms"]
        print(
            f"{name:10s} {size:38s} {label:14s} {times['forward_ms']:11.1f} {times['backward_ms']:12.1f} "
            f"{total:10.1f} {times['best_ms']:10.1f}"
        )
    if "ratio" in row:
        print(f"{name:10s} {size:38s} the core is {row['ratio']:.0f} times as fast as the reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=["training", "mid"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {
        "threads": arguments.threads, "repeats": arguments.repeats, "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0], "workloads": {},
    }  # fmt: skip
    print(f"load average {results['load_before']:.1f}, {arguments.threads} threads")
    print(f"{'':10s} {'':38s} {'':14s} {'forward ms':>11s} {'backward ms':>12s} {'sum ms':>10s} {'best ms':>10s}")
    for name in arguments.workloads:
        row = compare(WORKLOADS[name], arguments.repeats)
        results["workloads"][name] = row
        print_row(name, row)
    results["load_after"] = os.getloadavg()[0]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    ratio = results["workloads"].get("mid", {}).get("ratio")
    if ratio is not None and ratio < LEAST_RATIO:
        sys.exit(f"mid: {ratio:.0f} times as fast as the reference; expected at least {LEAST_RATIO:.0f}")


if __name__ == "__main__":
    main()
