"""Few samples per ray of generators that were trained: how far from many, by sampler, and along training.

Usage: ``python benchmarks/trained_samplers.py RUN [--heads 16] [--size 64]``, RUN of
``configs/wysiwyg_heads64.yaml`` or its like. Prints a table for every checkpoint in RUN (as many as
``keep_checkpoints`` left) and writes ``benchmarks/results/trained_samplers.json`` and ``.png``: the curves of the run's
log. Nothing is timed.

PSNR in dB on white, against 192 even samples, all at regular places. The last row has the untrained proposal network
of the config in place of the trained one: what a probe tells that nothing was learnt from.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from cgsgan import load_generator
from cgsgan.cameras import Cameras, orbit
from cgsgan.export.charts import Curve, Panel, save_panels
from cgsgan.gallery import generate_scenes, latents_from_seeds
from cgsgan.models.triplane.proposal import ProposalNetwork
from cgsgan.models.triplane.sdf import SdfGenerator
from cgsgan.rendering import RobustRenderer
from cgsgan.rendering.robust_settings import RaySampler
from cgsgan.training.checkpoint import list_checkpoints
from cgsgan.training.log import read_log
from cgsgan.types import SdfPlanes

RESULTS = Path(__file__).parent / "results" / "trained_samplers.json"
COUNTS = (8, 16, 20, 32)
TRUTH_SAMPLES = 192
YAWS = (-0.6, 0.0, 0.6)
HEADS_AT_ONCE = 4


@torch.no_grad()
def pictures(renderer: RobustRenderer, scenes: SdfPlanes, cameras: Cameras, size: int) -> Tensor:
    white = scenes.planes.new_ones(*cameras.viewmats.shape[:2], 3)
    return renderer(scenes, cameras, size=size, backgrounds=white).images.clamp(0, 1)


def fresh_proposal(network: torch.nn.Module) -> ProposalNetwork:
    """As it was before training."""
    assert isinstance(network, SdfGenerator)
    torch.manual_seed(0)
    return ProposalNetwork(network.config.proposal, network.config.resolution).eval()


def measure(checkpoint: Path, heads: int, size: int) -> dict[str, dict[int, float]]:
    """PSNR by sampler and samples per ray."""
    generator = load_generator(checkpoint)
    renderer = generator.renderer
    assert isinstance(renderer, RobustRenderer), f"{checkpoint}: its pictures are not made with the sampler (yet)"
    untrained = fresh_proposal(generator.network)
    samplers: list[RaySampler] = [*get_args(RaySampler)]
    names = [*samplers, "robust, untrained"]
    errors = {name: dict.fromkeys(COUNTS, 0.0) for name in names}
    yaw = torch.tensor(YAWS)
    views = orbit(yaw, torch.zeros_like(yaw)).map(lambda t: t.expand(HEADS_AT_ONCE, *t.shape))
    parts = latents_from_seeds(range(heads), generator.z_dim).split(HEADS_AT_ONCE)
    for z in parts:
        scenes = generate_scenes(generator, z)
        assert isinstance(scenes, SdfPlanes)
        cameras = Cameras(viewmats=views.viewmats[: len(z)], Ks_normalized=views.Ks_normalized[: len(z)])
        truth = pictures(renderer.with_sampler("uniform", TRUTH_SAMPLES), scenes, cameras, size)
        for name in names:
            shown = replace(scenes, propose=untrained) if name not in samplers else scenes
            sampler: RaySampler = "robust" if name not in samplers else name  # type: ignore[assignment]
            for count in COUNTS:
                found = pictures(renderer.with_sampler(sampler, count), shown, cameras, size)
                errors[name][count] += float((found - truth).square().mean()) / len(parts)
    return {
        name: {count: -10 * torch.tensor(error).log10().item() for count, error in row.items()}
        for name, row in errors.items()
    }


def save_log_curves(run: Path) -> dict[str, list[tuple[float, float]]]:
    """The curves of the log as a picture; and as numbers."""
    rows = [row for row in read_log(run / "log.jsonl") if "kimg" in row]
    keys = ("sampler_psnr", "uniform_psnr", "proposal_divergence", "mean_beta")
    points = {key: [(row["kimg"], row[key]) for row in rows if key in row] for key in keys}
    panels = [
        Panel(
            title="20 samples against 160 even ones, dB",
            curves=[
                Curve(name="where the sampler puts them", points=points["sampler_psnr"]),
                Curve(name="20 even ones", points=points["uniform_psnr"]),
            ],
        ),
        Panel(
            title="proposal: divergence from its targets, nats",
            curves=[Curve(name="", points=points["proposal_divergence"])],
        ),
        Panel(title="mean beta, world units", curves=[Curve(name="", points=points["mean_beta"])], logarithmic=True),
    ]
    save_panels(RESULTS.with_suffix(".png"), panels, x_label="1,000 images", columns=3)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description="Few samples per ray of trained generators, by sampler.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    results = {}
    for checkpoint in list_checkpoints(options.run / "checkpoints"):
        results[checkpoint.name] = found = measure(checkpoint, options.heads, options.size)
        print(f"\n| {checkpoint.name} | {' | '.join(map(str, COUNTS))} |\n|---|{'---|' * len(COUNTS)}")
        for name, row in found.items():
            print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row.values())} |")
    settings = {"run": options.run.name, "heads": options.heads, "size": options.size, "truth_samples": TRUTH_SAMPLES}
    curves = save_log_curves(options.run)
    RESULTS.write_text(json.dumps({"settings": settings, "checkpoints": results, "log": curves}, indent=1) + "\n")
    print(f"wrote {RESULTS} and {RESULTS.with_suffix('.png')}")


if __name__ == "__main__":
    main()
