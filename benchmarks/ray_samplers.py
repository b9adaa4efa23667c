"""Few samples per ray, by sampler: error, bias and spread against 1,024 samples, with a perfect proposal.

Usage: ``python benchmarks/ray_samplers.py [--size 48] [--seeds 32]``. Prints a table and writes
``benchmarks/results/ray_samplers.json`` and ``.webp``. Nothing is timed; takes some minutes on one core.

Three scenes of signed distance that can be written down, looked at by the renderer that trains: a ball, two parallel
sheets that each let about a third of the light through, and a rod three pixels thick. The proposal of every pixel
is the weights that 1,152 samples found, summed over the bins. Random places, as in training: RMSE over pixels, colours
and seeds; bias, the RMS of the mean over seeds less the truth (without what the spread leaves in that mean); and the
standard deviation over seeds. At regular places, as in inference: RMSE. And what becomes of it when the proposal is
less than perfect: blurred as the targets of training are, or two bins too far.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from PIL import Image
from torch import Tensor

from cgsgan.cameras import Cameras, orbit
from cgsgan.rendering import RobustConfig, RobustRenderer
from cgsgan.rendering.plane_sampling import AXES
from cgsgan.rendering.proposal import proposal_targets
from cgsgan.rendering.robust_settings import RaySampler
from cgsgan.types import SdfPlanes

RESULTS = Path(__file__).parent / "results" / "ray_samplers.json"
COUNTS = (8, 16, 20, 32)
TRUTH_SAMPLES = 1024
SAMPLES_PER_BIN = 6
SPOILT_COUNT = 20
BETA = 0.004  # world units; a bin of the default config is 0.0055 long
NAMES = {
    "uniform": "uniform, in strata",
    "importance": "two passes, half + half",
    "unstratified": "proposal, unstratified",
    "stratified": "proposal, in strata",
    "robust": "robust",
}


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1, keepdim=True) - 0.28


def sheets(points: Tensor) -> Tensor:
    """Without thickness: each has an optical depth of 1 at any beta, seen at a right angle."""
    z = points[..., 2:]
    wide = points[..., :2].abs().amax(dim=-1, keepdim=True) - 0.25
    return torch.maximum(torch.minimum((z - 0.2).abs(), (z + 0.15).abs()), wide)


def rod(points: Tensor) -> Tensor:
    axis = torch.nn.functional.normalize(points.new_tensor([0.5, 1.0, 0.3]), dim=0)
    along = (points * axis).sum(dim=-1, keepdim=True).clamp(-0.3, 0.3)
    return (points - along * axis).norm(dim=-1, keepdim=True) - 0.015


SCENES = {"ball": ball, "two sheets": sheets, "rod": rod}


def make_scene(name: str) -> SdfPlanes:
    """Planes whose mean is (x, y, z, 1), which a decoder reads as the surface and a pattern of colours.

    Outside their box they are 0, and the 1 tells that nothing is there.
    """
    side = 64
    ramp = (torch.arange(side) + 0.5) / side - 0.5
    planes, written = torch.zeros(1, 3, 4, side, side), set()
    planes[:, :, 3] = 1
    for plane, (column_axis, row_axis) in zip(planes[0], AXES["corrected"]):
        for axis, values in ((column_axis, ramp.expand(side, side)), (row_axis, ramp[:, None].expand(side, side))):
            if axis not in written:
                plane[axis] = 3 * values
                written.add(axis)

    def decode(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        points = features[..., :3]
        signed = torch.where(features[..., 3:] > 0.999, SCENES[name](points), 1.0)
        return signed, torch.full_like(signed, BETA), 0.5 + 0.5 * torch.sin(25 * points)

    def propose(images: Tensor, weights: Tensor) -> Tensor:
        raise AssertionError("proposals are given")

    return SdfPlanes(planes=planes, ws=torch.zeros(1, 1, 1), decode=decode, propose=propose)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A scene from one camera, with what is known of it."""

    scenes: SdfPlanes
    cameras: Cameras
    background: Tensor
    truth: Tensor
    logits: Tensor
    size: int

    def render(self, config: RobustConfig, seeds: Tensor | None) -> Tensor:
        """Pictures [seed, 3, size, size], or one at regular places."""
        count = 1 if seeds is None else seeds.shape[1]
        renderer = RobustRenderer(config, self.size)
        if seeds is not None:
            renderer = renderer.for_training(seeds)
        return renderer.render_robust(
            self.scenes,
            self.cameras.map(lambda t: t.expand(-1, count, -1, -1)),
            size=self.size,
            backgrounds=self.background.expand(1, count, 3),
            logits=self.logits.expand(-1, count, -1, -1, -1),
        ).images[0]


def make_subject(name: str, size: int) -> Subject:
    """With the perfect proposal; rays that hit nothing have a uniform one."""
    scenes, background = make_scene(name), torch.tensor([0.2, 0.5, 0.9])
    cameras = orbit(torch.tensor([[0.35]]), torch.tensor([[0.15]]))
    config = RobustConfig()
    fine = RobustRenderer(replace(config, bins=config.bins * SAMPLES_PER_BIN, probe_resolution=size), size)
    weights = fine.probe(scenes, cameras).weights.unflatten(2, (config.bins, SAMPLES_PER_BIN)).sum(dim=3)
    empty = weights.sum(dim=2, keepdim=True) == 0
    truth = fine.render_uniform(
        scenes, cameras, size=size, backgrounds=background.expand(1, 1, 3), samples=TRUTH_SAMPLES
    ).images[0, 0]
    logits = torch.where(empty, 1.0, weights).log()
    return Subject(scenes=scenes, cameras=cameras, background=background, truth=truth, logits=logits, size=size)


def configure(sampler: RaySampler, count: int) -> RobustConfig:
    """The default one with other samples; as many strata as samples where there are fewer."""
    return RobustConfig(
        sampler=sampler,
        strata=min(count, RobustConfig().strata),
        samples=count,
        inference_samples=count,
        inference_wide_samples=count,
    )


def measure(subject: Subject, sampler: RaySampler, count: int, seeds: int) -> dict[str, float]:
    config = configure(sampler, count)
    pictures = subject.render(config, torch.arange(seeds)[None] + 1)
    variance = float(pictures.var(dim=0).mean())
    error = float((pictures - subject.truth).square().mean())
    offset = float((pictures.mean(dim=0) - subject.truth).square().mean())
    regular = float((subject.render(config, None)[0] - subject.truth).square().mean())
    return {
        "rmse": math.sqrt(error),
        "bias": math.sqrt(max(0.0, offset - variance / seeds)),
        "std": math.sqrt(variance),
        "regular_rmse": math.sqrt(regular),
    }


def spoil(logits: Tensor) -> dict[str, Tensor]:
    """Proposals that are less than perfect."""
    perfect = logits.softmax(dim=2)
    blurred = proposal_targets(perfect)
    return {"perfect": logits, "blurred": blurred.log(), "two bins too far": blurred.roll(2, dims=2).log()}


def measure_proposals(subject: Subject, seeds: int) -> dict[str, dict[str, float]]:
    """RMSE with the samples of training, by proposal and sampler."""
    rows: dict[str, dict[str, float]] = {}
    samplers: tuple[RaySampler, ...] = ("unstratified", "stratified", "robust")
    for name, logits in spoil(subject.logits).items():
        chosen = replace(subject, logits=logits)
        rows[name] = {sampler: measure(chosen, sampler, SPOILT_COUNT, seeds)["rmse"] for sampler in samplers}
        print(f"{SPOILT_COUNT} samples, {name}: " + ", ".join(f"{k} {1e3 * v:.1f}" for k, v in rows[name].items()))
    return rows


def print_table(scene: str, rows: dict[str, dict[int, dict[str, float]]]) -> None:
    print(f"\n| {scene}, x 1000 | " + " | ".join(f"{count}" for count in COUNTS) + " |")
    print("|---" * (1 + len(COUNTS)) + "|")
    for sampler, figures in rows.items():
        cells = [
            f"{1e3 * f['rmse']:.1f} ({1e3 * f['bias']:.1f}, {1e3 * f['std']:.1f}) {1e3 * f['regular_rmse']:.1f}"
            for f in figures.values()
        ]
        print(f"| {NAMES[sampler]} | " + " | ".join(cells) + " |", flush=True)


def draw_pictures(samplers: Sequence[RaySampler], *, size: int = 64, count: int = 16, scale: int = 3) -> None:
    """A row for every scene: the truth, then each sampler at random places."""
    rows = []
    for scene in SCENES:
        subject, seed = make_subject(scene, size), torch.tensor([[1]])
        pictures = [subject.truth, *(subject.render(configure(sampler, count), seed)[0] for sampler in samplers)]
        rows.append(torch.cat(pictures, dim=-1))
    pixels = (torch.cat(rows, dim=1).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    large = Image.fromarray(pixels).resize((pixels.shape[1] * scale, pixels.shape[0] * scale), Image.Resampling.NEAREST)
    large.save(RESULTS.with_suffix(".webp"), quality=90)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Error, bias and spread of few samples per ray, by sampler.")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=32)
    options = parser.parse_args()
    samplers: list[RaySampler] = sorted(get_args(RaySampler), key=[*NAMES].index)
    draw_pictures(samplers)
    results: dict[str, dict] = {}
    for scene in SCENES:
        subject = make_subject(scene, options.size)
        rows = {
            sampler: {count: measure(subject, sampler, count, options.seeds) for count in COUNTS}
            for sampler in samplers
        }
        print_table(scene, rows)
        adaptive = subject.render(RobustConfig(), None)[0]
        rmse = float((adaptive - subject.truth).square().mean().sqrt())
        print(f"adaptive, 17.6 samples on average, at regular places: {1e3 * rmse:.1f}")
        spoilt = measure_proposals(subject, options.seeds)
        results[scene] = {"samplers": rows, "adaptive_rmse": rmse, "proposals": spoilt}
    settings = {"size": options.size, "seeds": options.seeds, "beta": BETA, "truth_samples": TRUTH_SAMPLES}
    RESULTS.write_text(json.dumps({"settings": settings, "scenes": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
