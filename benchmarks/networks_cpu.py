"""What the networks cost on a CPU: EG3D's forward pass part by part, CGS-GAN's generator forward and backward, the
small tri-plane generator, and the forms of a modulated convolution that there were to choose from.

    python benchmarks/networks_cpu.py [--threads 1] [--repeats 5] [--parts eg3d cgsgan small forms]

All are CPU seconds of this process (the least of the repeats), which other work on the machine changes little; weights
are random. Prints tables, writes ``results/networks_cpu.json``, and ends with an error where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As cgsgan's commands do: torch's idle threads would spin for milliseconds on cores that others need.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from cgsgan.cameras import orbit
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.models.presets import published_generator, published_triplane_generator, quickstart_triplane_generator
from cgsgan.models.triplane.generator import TriPlaneGenerator
from cgsgan.models.triplane.modulation import StyledConv, SynthesisSettings
from cgsgan.models.triplane.resampling import make_low_pass
from cgsgan.rendering.volume import VolumeConfig, VolumeRenderer

RESULTS = Path(__file__).parent / "results" / "networks_cpu.json"
MOST_EG3D = 5.0  # CPU seconds: 512 px from 64 px, 48 + 48 samples, one latent, everything
MOST_CGSGAN = 10.0  # forward and backward, 256 px, 4 latents


def least(run: Callable[[], Any], repeats: int) -> float:
    """The least CPU seconds of a call, after one to warm up."""
    run()
    return min(clock(run) for _ in range(repeats))


def clock(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def show(title: str, unit: str, rows: dict[str, float]) -> None:
    table = Table("", unit, title=title)
    for name, value in rows.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)


@torch.no_grad()
def measure_eg3d(repeats: int) -> dict[str, float]:
    """Latent and camera to picture, in parts and whole."""
    generator = TriPlaneGenerator(published_triplane_generator(512)).eval()
    renderer = VolumeRenderer(VolumeConfig(plane_axes="official"), 512)
    cameras = orbit(torch.tensor([[0.3]]), torch.tensor([[0.1]]))
    z, backgrounds = torch.randn(1, generator.z_dim), torch.ones(1, 1, 3)
    labels = cameras.to_labels()[0]
    ws = generator.mapping(z, camera_labels=labels)
    scenes = generator(ws=ws).scenes
    assert scenes.refine is not None
    refine, raw, features = scenes.refine, torch.randn(1, 3, 64, 64), torch.randn(1, 32, 64, 64)

    def whole() -> Tensor:
        scenes = generator(z, camera_labels=labels).scenes
        return renderer(scenes, cameras, size=512, backgrounds=backgrounds).images

    rows = {
        "mapping": least(lambda: generator.mapping(z, camera_labels=labels), repeats),
        "planes, 3 x 32 x 256 x 256": least(lambda: generator.backbone(ws), repeats),
        "volume, 64 px, 48 + 48 samples": least(lambda: renderer.trace(scenes, cameras, 64), repeats),
        "super-resolution, 64 to 512 px": least(lambda: refine(raw, features, ws), repeats),
        "everything": least(whole, repeats),
        "another view of the same planes": least(
            lambda: renderer(scenes, cameras, size=512, backgrounds=backgrounds), repeats
        ),
    }
    show("EG3D, 512 px, batch 1, forward", "CPU s", rows)
    return rows


def measure_passes(run: Callable[[], list[Tensor]], repeats: int) -> dict[str, float]:
    """Forward and backward of outputs, summed with weights."""
    outputs = run()
    weights = [torch.randn_like(output) for output in outputs]
    forward, backward = [], []
    for _ in range(repeats):
        start = time.process_time()
        outputs = run()
        middle = time.process_time()
        torch.autograd.backward(outputs, weights)
        forward.append(middle - start)
        backward.append(time.process_time() - middle)
    sums = [a + b for a, b in zip(forward, backward)]
    return {"forward": min(forward), "backward": min(backward), "both": min(sums)}


def measure_cgsgan(repeats: int) -> dict[str, float]:
    generator = GaussianGenerator(published_generator(256))
    z = torch.randn(4, generator.z_dim)
    rows = measure_passes(lambda: list(generator(z).gaussians.tensors()), repeats)
    show("CGS-GAN's generator, 256 px, batch 4", "CPU s", rows)
    return rows


def measure_small(repeats: int) -> dict[str, float]:
    generator = TriPlaneGenerator(quickstart_triplane_generator())
    z, labels = torch.randn(16, generator.z_dim), torch.randn(16, 25)
    rows = measure_passes(lambda: [generator(z, camera_labels=labels).scenes.planes], repeats)
    show("small tri-plane generator, batch 16", "CPU s", rows)
    return rows


def insert_zeros(x: Tensor, weight: Tensor) -> Tensor:
    """Twice the size by zeros between pixels and a convolution of the large map, then the filter."""
    zeros = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    zeros[..., ::2, ::2] = x
    y = functional.conv2d(zeros, weight.flip(2, 3), padding=2)[..., :-1, :-1]
    return functional.conv2d(y, make_low_pass(y.shape[1], y), padding=1, groups=y.shape[1])


def apply_grouped(layer: StyledConv, x: Tensor, w: Tensor) -> Tensor:
    """One convolution with a group per sample, each with a weight of its own."""
    styles, batch = layer.affine(w), len(w)
    weight = layer.weight * styles[:, None, :, None, None]
    weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    groups = x.reshape(1, -1, *x.shape[2:])
    if layer.up:
        y = functional.conv_transpose2d(groups, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
        y = functional.conv2d(y, make_low_pass(y.shape[1], y), padding=1, groups=y.shape[1])
    else:
        y = functional.conv2d(groups, weight.flatten(0, 1), padding=1, groups=batch)
    y = y.unflatten(1, (batch, -1)).squeeze(0) + layer.bias[:, None, None]
    return functional.leaky_relu(y, 0.2) * 2**0.5


def apply_singly(layer: StyledConv, x: Tensor, w: Tensor) -> Tensor:
    return torch.cat([layer(x[i : i + 1], w[i : i + 1]) for i in range(len(x))])


def measure_forms(repeats: int) -> dict[str, dict[str, float]]:
    """The forms of one layer: a large one without gradients, small ones with."""
    settings = SynthesisSettings(w_dim=512, image_channels=3, noise="none", clamp=None)
    results = {}
    large = StyledConv(256, 128, size=512, settings=settings, up=True)
    x, w = torch.randn(1, 256, 256, 256), torch.randn(1, 512)
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        results["256 to 128 channels, 256 to 512 px, forward"] = {
            "zeros inserted, channels first": least(lambda: insert_zeros(x, large.weight), repeats),
            "zeros inserted, channels last": least(lambda: insert_zeros(last, large.weight), repeats),
            "transposed, channels first": least(lambda: large(x, w), repeats),
            "transposed, channels last (this one)": least(lambda: large(last, w), repeats),
        }
    for up, size in ((False, 64), (True, 32)):
        small = StyledConv(32, 32, size=size, settings=settings, up=up)
        x, w = torch.randn(16, 32, size, size), torch.randn(16, 512)
        last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        first = x.clone().requires_grad_()
        runs = {
            "a group per sample": lambda layer=small, x=first, w=w: [apply_grouped(layer, x, w)],
            "one by one": lambda layer=small, x=last, w=w: [apply_singly(layer, x, w)],
            "scaled activations (this one)": lambda layer=small, x=last, w=w: [layer(x, w)],
        }
        title = f"32 channels, batch 16, {size} to {2 * size if up else size} px, forward and backward"
        results[title] = {name: measure_passes(run, repeats)["both"] for name, run in runs.items()}
    for title, rows in results.items():
        show(title, "CPU s", rows)
    return results


def judge(results: dict[str, Any]) -> list[str]:
    """The limits that were missed."""
    found = []
    for part, row, most in (("eg3d", "everything", MOST_EG3D), ("cgsgan", "both", MOST_CGSGAN)):
        if (seconds := results.get(part, {}).get(row, 0.0)) > most:
            found.append(f"{part} takes {seconds:.1f} CPU seconds, expected at most {most:.0f}")
    return found


def main() -> None:
    parts = {"eg3d": measure_eg3d, "cgsgan": measure_cgsgan, "small": measure_small, "forms": measure_forms}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    results: dict[str, Any] = {
        "threads": arguments.threads, "repeats": arguments.repeats, "torch": torch.__version__,
        "isa": torch.backends.cpu.get_cpu_capability(), "load_before": os.getloadavg()[0],
    }  # fmt: skip
    print(f"{arguments.threads} threads, {results['isa']}, load average {results['load_before']:.1f}")
    for part in arguments.parts:
        results[part] = parts[part](arguments.repeats)
    results["load_after"] = os.getloadavg()[0]
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    if found := judge(results):
        sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
