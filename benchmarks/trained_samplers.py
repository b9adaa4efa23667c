"""Few samples per ray of generators that were trained: how far from many, by sampler, and along training.

Usage: ``python benchmarks/trained_samplers.py RUN [--heads 16] [--size 64]``, RUN of
``configs/wysiwyg_heads64.yaml`` or its like. Prints a table for every checkpoint in RUN (as many as
``keep_checkpoints`` left) and writes ``benchmarks/results/trained_samplers.json`` and ``.png``: the curves of the run's
log. Nothing is timed.

PSNR in dB on white, against 192 even samples, all at regular places. The last row has the untrained proposal network
of the config in place of the trained one: what a probe tells that nothing was learnt from. Then such a fresh network is
taught beside the scenes of the last checkpoint, which stay as they are: in training they tighten meanwhile.
"""

from __future__ import annotations

import argparse
import copy
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
from cgsgan.losses.proposal import proposal_cross_entropy
from cgsgan.models.triplane.proposal import ProposalNetwork
from cgsgan.models.triplane.sdf import SdfGenerator
from cgsgan.rendering import RobustRenderer
from cgsgan.rendering.proposal import proposal_targets
from cgsgan.rendering.robust_settings import RaySampler
from cgsgan.training.checkpoint import list_checkpoints
from cgsgan.training.log import read_log
from cgsgan.types import SdfPlanes

RESULTS = Path(__file__).parent / "results" / "trained_samplers.json"
COUNTS = (8, 16, 20, 32)
TRUTH_SAMPLES = 192
YAWS = (-0.6, 0.0, 0.6)
HEADS_AT_ONCE = 4
AVERAGE = 0.97
"""Of the taught network, per step: what is measured is its average, as of a trained generator."""


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
    assert isinstance(renderer, RobustRenderer), f"{checkpoint}: its scenes are not tri-planes of signed distance"
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
                errors[name][count] += float((found - truth).square().mean()) * len(z) / heads
    return {
        name: {count: -10 * torch.tensor(error).log10().item() for count, error in row.items()}
        for name, row in errors.items()
    }


def teach(checkpoint: Path, steps: int, size: int) -> list[dict[str, float]]:
    """A fresh proposal network beside scenes that stay as they are, taught as in training.

    Returns:
        By steps: divergence from the targets on latents and patches it never saw, nats; PSNR of 20 samples.
    """
    generator = load_generator(checkpoint)
    config, renderer = generator.config.training, generator.renderer
    assert isinstance(renderer, RobustRenderer)
    robust, network = renderer.with_sampler("robust", 20), fresh_proposal(generator.network)
    average = copy.deepcopy(network).requires_grad_(False)
    adam = torch.optim.Adam(network.parameters(), config.optimizer.generator_lr, betas=(0.0, 0.99))
    random, patch, rows = torch.Generator().manual_seed(1), config.surface.patch_size, []

    def subjects(z: Tensor, yaw: Tensor, proposal: ProposalNetwork) -> tuple[SdfPlanes, Cameras]:
        scenes = generate_scenes(generator, z)
        assert isinstance(scenes, SdfPlanes)
        yaw = yaw[:, None]
        return replace(scenes, propose=proposal), orbit(yaw, torch.zeros_like(yaw))

    def divergence(scenes: SdfPlanes, cameras: Cameras, corner: tuple[int, int], side: int) -> Tensor:
        row, column = corner
        logits = robust.propose(scenes, cameras)[..., row : row + side, column : column + side]
        targets = proposal_targets(robust.weights_of_patch(scenes, cameras, size=size, corner=corner, patch=side))
        return proposal_cross_entropy(logits, targets) + torch.xlogy(targets, targets).sum(dim=2).mean()

    kept = subjects(latents_from_seeds(range(8), generator.z_dim), torch.linspace(-0.6, 0.6, 8), average)
    truth = pictures(renderer.with_sampler("uniform", TRUTH_SAMPLES), *kept, size)
    for step in range(steps + 1):
        if step % max(1, steps // 20) == 0:
            with torch.no_grad():
                error = (pictures(robust, *kept, size) - truth).square().mean()
                rows.append({"step": step, "divergence": float(divergence(*kept, (0, 0), size)),
                             "psnr": float(-10 * error.log10())})  # fmt: skip
        z = torch.randn(HEADS_AT_ONCE, generator.z_dim, generator=random)
        yaw = torch.randn(HEADS_AT_ONCE, generator=random) * 0.4
        corner = torch.randint(size - patch + 1, (2,), generator=random).tolist()
        adam.zero_grad()
        divergence(*subjects(z, yaw, network), (corner[0], corner[1]), patch).backward()
        adam.step()
        for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
            slow.data.lerp_(fast.data, 1 - AVERAGE)
    return rows


def save_curves(run: Path, taught: list[dict[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """The curves of the log and of :func:`teach` as a picture; those of the log as numbers."""
    rows = [row for row in read_log(run / "log.jsonl") if "kimg" in row]
    keys = ("sampler_psnr", "uniform_psnr", "proposal_divergence", "mean_beta")
    points = {key: [(row["kimg"], row[key]) for row in rows if key in row] for key in keys}
    panels = [
        Panel(
            title="few samples against many even ones (training.surface.audit_factor), dB",
            curves=[
                Curve(name="where the sampler puts them", points=points["sampler_psnr"]),
                Curve(name="as many even ones", points=points["uniform_psnr"]),
            ],
        ),
        Panel(
            title="proposal: divergence from its targets, nats",
            curves=[Curve(name="", points=points["proposal_divergence"])],
        ),
        Panel(
            title="fresh proposal, scenes as they are: 20 samples, dB",
            curves=[Curve(name="against 192, over steps", points=[(row["step"], row["psnr"]) for row in taught])],
        ),
        Panel(
            title="its divergence from the targets, nats",
            curves=[Curve(name="on heads it never saw", points=[(row["step"], row["divergence"]) for row in taught])],
        ),
        Panel(title="mean beta, world units", curves=[Curve(name="", points=points["mean_beta"])], logarithmic=True),
    ]
    save_panels(RESULTS.with_suffix(".png"), panels, x_label="1,000 images, or steps", columns=2)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description="Few samples per ray of trained generators, by sampler.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--teach", type=int, default=300, help="steps in which a fresh proposal network is taught")
    options = parser.parse_args()
    checkpoints = list_checkpoints(options.run / "checkpoints")
    if not checkpoints:
        parser.error(f"{options.run}: holds no checkpoints")
    results = {}
    for checkpoint in checkpoints:
        results[checkpoint.name] = found = measure(checkpoint, options.heads, options.size)
        print(f"\n| {checkpoint.name} | {' | '.join(map(str, COUNTS))} |\n|---|{'---|' * len(COUNTS)}")
        for name, row in found.items():
            print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row.values())} |")
    settings = {"run": options.run.name, "heads": options.heads, "size": options.size, "truth_samples": TRUTH_SAMPLES}
    taught = teach(checkpoints[-1], options.teach, options.size)
    for row in taught:
        print(f"{row['step']:5.0f} steps  divergence {row['divergence']:.3f}  {row['psnr']:.2f} dB")
    curves = save_curves(options.run, taught)
    found = {"settings": settings, "checkpoints": results, "log": curves, "taught": taught}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {RESULTS} and {RESULTS.with_suffix('.png')}")


if __name__ == "__main__":
    main()
