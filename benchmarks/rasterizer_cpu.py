"""The compiled CPU rasterizer: sizes, instruction sets, threads, views, frames per second; against its limit, against a
plain C++ rasterizer and against the plain torch reference. Everything in one run on one machine.

Usage: ``python benchmarks/rasterizer_cpu.py [--threads 2] [--repeats 20] [--parts sizes isas ...]``. Prints tables and
writes ``benchmarks/results/rasterizer_cpu.json``. Takes about three minutes; times mean something on a quiet machine
only, and the load before and after is printed and written.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

# As cgsgan's commands do: torch's idle threads would spin for milliseconds on the cores that the rasterizer needs.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import torch
from limits import count, find_limit, find_planned_limit
from native import GRADIENTS, PlainRasterizer, measure_rates
from torch import Tensor
from workloads import CAMERA_DISTANCE, WORKLOADS, Workload

from rasterizer import backend
from rasterizer.autograd import pool, rasterize_cpu
from rasterizer.reference import rasterize_reference

RESULTS = Path(__file__).parent / "results" / "rasterizer_cpu.json"
SIZES = ("training", "small", "fine", "mid", "coarse", "large", "huge", "batch")
MOST_OVER_PLAN = 2.5  # times the planned limit, workload "mid"
LEAST_OVER_REFERENCE = 100.0
LEAST_FRAMES = 25.0  # per second, 240,000 Gaussians at 512 px
FLIP = 1e-4  # a pixel that differs by more lies on the other side of a threshold
MOST_FLIPPED = 1e-3

Times = dict[str, float]


def summarize(forward: list[float], backward: list[float]) -> Times:
    """Medians and the best sum, milliseconds from seconds; the first call is not counted."""
    forward, backward = forward[len(forward) > 1 :], backward[len(backward) > 1 :]
    return {
        "forward_ms": 1e3 * statistics.median(forward),
        "backward_ms": 1e3 * statistics.median(backward),
        "best_ms": 1e3 * min(a + b for a, b in zip(forward, backward)),
    }


def measure(function: Callable[..., Any], workload: Workload, repeats: int) -> Times:
    """Times of the forward and the backward pass."""
    scene = workload.scene()
    leaves = [tensor for tensor in scene.values() if tensor.requires_grad]
    forward, backward = [], []
    v_colors = torch.ones(workload.batch, workload.views, workload.size, workload.size, 3)
    for _ in range(repeats + (repeats > 1)):
        start = time.perf_counter()
        colors, *_ = function(**scene, width=workload.size, height=workload.size)
        middle = time.perf_counter()
        torch.autograd.grad(colors, leaves, grad_outputs=v_colors)
        forward.append(middle - start)
        backward.append(time.perf_counter() - middle)
        del colors  # with its graph, whose memory the next call takes
    return summarize(forward, backward)


def total(times: Times) -> float:
    return times["forward_ms"] + times["backward_ms"]


def affordable(workload: Workload, repeats: int) -> int:
    """Fewer repeats of what takes longer."""
    work = workload.batch * workload.views * workload.gaussians / WORKLOADS["mid"].gaussians
    return max(2, min(repeats, math.ceil(repeats / work)))


def compare_sizes(repeats: int, rates: dict[str, float]) -> dict[str, Any]:
    """Every size on the best instruction set, with its own numbers and its limit."""
    rows: dict[str, Any] = {}
    print(
        f"\n{'size':9s} {'px':>5s} {'Gaussians':>9s} {'views':>5s} | {'inst.':>5s} {'kept':>5s} {'blocks':>6s} "
        f"{'longest':>7s} {'MB/view':>7s} | {'forward':>8s} {'backward':>8s} {'sum ms':>8s} {'limit':>7s} {'ratio':>6s}"
    )
    for name in SIZES:
        workload = WORKLOADS[name]
        colors, *_ = rasterize_cpu(**workload.scene(), width=workload.size, height=workload.size)
        counts = count(colors, workload)
        del colors
        times = measure(rasterize_cpu, workload, affordable(workload, repeats))
        limit = find_limit(workload, counts, rates)
        rows[name] = {**asdict(workload), **asdict(counts), **times, "limit_ms": limit, "ratio": total(times) / limit}
        print(
            f"{name:9s} {workload.size:5d} {workload.gaussians:9d} {workload.batch * workload.views:5d} | "
            f"{counts.instances:5.2f} {counts.kept:5.2f} {counts.blocks:6.2f} {counts.longest:7d} "
            f"{counts.bytes_per_view / 1e6:7.1f} | {times['forward_ms']:8.1f} {times['backward_ms']:8.1f} "
            f"{total(times):8.1f} {limit:7.1f} {rows[name]['ratio']:6.2f}"
        )
        pool.clear()
    planned = find_planned_limit(rates)
    rows["mid"] |= {"planned_limit_ms": planned, "planned_ratio": total(rows["mid"]) / planned}
    print(f"mid: {rows['mid']['planned_ratio']:.2f} times the planned limit of {planned:.1f} ms at this machine's rate")
    return rows


def compare_isas(repeats: int) -> dict[str, Any]:
    """The workload "mid" on every instruction set."""
    rows = {}
    for isa in backend.available_isas():
        backend.select_isa(isa)
        rows[isa] = measure(rasterize_cpu, WORKLOADS["mid"], repeats)
    backend.select_isa()
    best = total(rows[backend.available_isas()[0]])
    print_rows("instruction set", {isa: (times, total(times) / best) for isa, times in rows.items()}, "of best")
    return rows


def compare_threads(repeats: int, threads: int) -> dict[str, Any]:
    """The workload "mid" on one and on all threads."""
    rows = {}
    for number in sorted({1, threads}):
        torch.set_num_threads(number)
        rows[str(number)] = measure(rasterize_cpu, WORKLOADS["mid"], repeats)
    one = total(rows["1"])
    print_rows("threads", {name: (times, one / total(times)) for name, times in rows.items()}, "speed-up")
    return rows


def compare_views(repeats: int) -> dict[str, Any]:
    """The workload "mid" with several views of the scene in one call."""
    rows = {}
    for views in (1, 4, 8):
        workload = replace(WORKLOADS["mid"], views=views)
        rows[str(views)] = measure(rasterize_cpu, workload, affordable(workload, repeats))
        pool.clear()
    print_rows("views", {name: (times, total(times) / int(name)) for name, times in rows.items()}, "ms/view")
    return rows


def print_rows(title: str, rows: dict[str, tuple[Times, float]], last: str) -> None:
    print(f"\n{title:16s} {'forward':>8s} {'backward':>8s} {'sum ms':>8s} {last:>8s}")
    for name, (times, number) in rows.items():
        print(f"{name:16s} {times['forward_ms']:8.1f} {times['backward_ms']:8.1f} {total(times):8.1f} {number:8.2f}")


def compare_frames(repeats: int) -> dict[str, Any]:
    """Frames per second of an orbit around a scene that stays, one view per call, no gradients.

    "level" stands for the coarser level of detail of "mid": a quarter of its Gaussians, twice as large.
    """
    rows = {}
    print(f"\n{'orbit at 512 px':16s} {'Gaussians':>9s} {'ms':>7s} {'frames/s':>9s}")
    for name in ("sparse", "mid", "level"):
        workload = WORKLOADS[name]
        scene = {key: tensor.detach() for key, tensor in workload.scene().items()}
        times = []
        for step in range(2 * repeats + 1):
            yaw = 2 * math.pi * step / (2 * repeats)
            cos, sin = math.cos(yaw), math.sin(yaw)
            turned = [[cos, 0, -sin, 0], [0, 1, 0, 0], [sin, 0, cos, CAMERA_DISTANCE], [0, 0, 0, 1]]
            scene["viewmats"] = torch.tensor(turned)[None, None]
            start = time.perf_counter()
            rasterize_cpu(**scene, width=workload.size, height=workload.size)
            times.append(1e3 * (time.perf_counter() - start))
        frame = statistics.median(times[1:])
        rows[name] = {"gaussians": workload.gaussians, "frame_ms": frame, "frames_per_s": 1e3 / frame}
        print(f"{name:16s} {workload.gaussians:9d} {frame:7.1f} {1e3 / frame:9.1f}")
    return rows


def run_plain(plain: PlainRasterizer, v_colors: Tensor) -> tuple[Tensor, dict[str, Tensor], float, float]:
    """Image and gradients of the plain C++ rasterizer, and the seconds of both passes."""
    start = time.perf_counter()
    image, _, state = plain.forward()
    middle = time.perf_counter()
    gradients = plain.backward(state, v_colors)
    return image, gradients, middle - start, time.perf_counter() - middle


def compare_plain(repeats: int) -> dict[str, Any]:
    """The plain C++ rasterizer on the workload "mid", its image and gradients checked against those of the core."""
    workload = WORKLOADS["mid"]
    scene = workload.scene()
    colors, *_ = rasterize_cpu(**scene, width=workload.size, height=workload.size)
    v_colors = torch.randn(colors.shape, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad(colors, [scene[name] for name in GRADIENTS], v_colors)
    plain = PlainRasterizer(scene, workload.size)
    runs = [run_plain(plain, v_colors[0, 0]) for _ in range(max(2, repeats // 10))]
    image, gradients = runs[-1][:2]
    flipped = ((colors[0, 0] - image).abs().amax(-1) > FLIP).double().mean().item()
    errors = {
        name: ((theirs - gradient[0]).norm() / gradient.norm()).item()
        for (name, theirs), gradient in zip(gradients.items(), ours)
    }
    own = measure(rasterize_cpu, workload, repeats)
    times = summarize([run[2] for run in runs], [run[3] for run in runs])
    row = {**times, "ratio": total(times) / total(own), "flipped": flipped, "gradient_errors": errors}
    print_rows("other rasterizers", {"this one": (own, 1.0), "plain C++": (times, row["ratio"])}, "of ours")
    print(f"equal images but for {flipped:.1e} of the pixels; gradients apart by at most {max(errors.values()):.1e}")
    if flipped > MOST_FLIPPED or max(errors.values()) > 1e-2:
        raise SystemExit("the plain C++ rasterizer renders something else: the comparison means nothing")
    return row


def compare_reference(repeats: int) -> dict[str, Any]:
    """The plain torch reference, once."""
    rows = {}
    for name in ("training", "mid"):
        own, reference = (
            measure(rasterize_cpu, WORKLOADS[name], repeats),
            measure(rasterize_reference, WORKLOADS[name], 1),
        )
        rows[name] = {**reference, "ratio": total(reference) / total(own)}
        print(f"torch reference, {name}: {total(reference):.0f} ms, {rows[name]['ratio']:.0f} times as long")
    return rows


def judge(results: dict[str, Any]) -> list[str]:
    """What a run should show and does not."""
    found = []
    if (ratio := results.get("sizes", {}).get("mid", {}).get("planned_ratio", 0.0)) > MOST_OVER_PLAN:
        found.append(f"mid takes {ratio:.2f} times the planned limit, expected at most {MOST_OVER_PLAN}")
    if (frames := results.get("frames", {}).get("mid", {}).get("frames_per_s", math.inf)) < LEAST_FRAMES:
        found.append(f"{frames:.0f} frames per second, expected at least {LEAST_FRAMES:.0f}")
    if (ratio := results.get("reference", {}).get("mid", {}).get("ratio", math.inf)) < LEAST_OVER_REFERENCE:
        found.append(f"{ratio:.0f} times as fast as the reference, expected at least {LEAST_OVER_REFERENCE:.0f}")
    return found


def main() -> None:
    parts = ("sizes", "isas", "threads", "views", "frames", "plain", "reference")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {
        "threads": arguments.threads, "repeats": arguments.repeats, "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(),
        "isa": backend.available_isas()[0], "load_before": os.getloadavg()[0],
        "rates": measure_rates(arguments.threads),
    }  # fmt: skip
    rates = results["rates"]
    print(
        f"load average {results['load_before']:.1f}, {arguments.threads} threads, {results['isa']}: "
        f"{rates['gflops']:.0f} GFLOP/s of multiply-adds, {rates['copy_gb_per_s']:.1f} GB/s copied"
    )
    repeats = arguments.repeats
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "sizes": lambda: compare_sizes(repeats, rates), "isas": lambda: compare_isas(repeats),
        "threads": lambda: compare_threads(repeats, arguments.threads), "views": lambda: compare_views(repeats),
        "frames": lambda: compare_frames(repeats), "plain": lambda: compare_plain(repeats),
        "reference": lambda: compare_reference(repeats),
    }  # fmt: skip
    for part in arguments.parts:
        results[part] = runs[part]()
    results["load_after"] = os.getloadavg()[0]
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    if found := judge(results):
        sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
