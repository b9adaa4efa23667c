"""Figures of several views of one scene: against each other, and their depth against that of real heads."""

from __future__ import annotations

import math
from dataclasses import asdict

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras, orbit
from cgsgan.data.depth_truth import DepthTruth
from cgsgan.evaluation.studio import Studio
from cgsgan.metrics.consistency import OPAQUE, reprojection_errors
from cgsgan.metrics.depth import compare_depths, reduce_depths
from cgsgan.metrics.extractors import FeatureExtractor
from cgsgan.metrics.figures import Figures
from cgsgan.metrics.likeness import compare_likeness

CONSISTENCY_SCENES = 128
CONSISTENCY_PAIRS = {"10": ((-5.0, 0.0), (5.0, 0.0)), "30": ((-15.0, 0.0), (15.0, 0.0))}
"""Degrees between two views: yaw and pitch of both."""
LIKENESS_SCENES = 1024
DEPTH_SCENES = 128


def view_consistency(studio: Studio, z: Float[Tensor, "scene z_dim"], run: str) -> Figures:
    """Errors of surfaces carried from one view into another, for each angle between them.

    Args:
        studio: makes the views.
        z: latents; the first ``CONSISTENCY_SCENES`` are looked at.
        run: name of this measurement, for its progress.
    """
    figures: Figures = {}
    for name, angles in CONSISTENCY_PAIRS.items():
        radians = torch.tensor(angles).deg2rad()
        cameras = orbit(radians[:, 0], radians[:, 1])

        def errors(index: Tensor, cameras=cameras) -> Float[Tensor, "index 3"]:
            pair = cameras.map(lambda t: t.expand(len(index), *t.shape))
            views = studio.render(z[index], pair, depth=True)
            found = reprojection_errors(views, pair.map(lambda t: t.to(views.images.device)))
            return torch.stack([found.depth, found.color, found.visible], dim=1)

        found = studio.share(errors, min(CONSISTENCY_SCENES, len(z)), f"{run}: {name} degrees")
        for column, kind in enumerate(("depth", "color", "visible")):
            value = float(found[:, column].nanmean())
            figures[f"consistency_{kind}_{name}deg"] = value if math.isfinite(value) else None
    return figures


def view_likeness(
    studio: Studio,
    extractor: FeatureExtractor,
    z: Float[Tensor, "scene z_dim"],
    labels: Float[Tensor, "scene 25"],
    run: str,
) -> Figures:
    """Cosines of features of one scene from two cameras of the data, and of two scenes; how well they are told apart.

    Args:
        studio: makes the views.
        extractor: of the features; only one that knows faces measures identity.
        z: latents; the first ``LIKENESS_SCENES`` are looked at.
        labels: a camera for each; the second camera of a scene is the first one of the next scene.
        run: name of this measurement, for its progress.

    Returns:
        ``same``, ``other`` and ``told_apart``, see :class:`cgsgan.metrics.likeness.Likeness`.
    """
    count = min(LIKENESS_SCENES, len(z))
    cameras = Cameras.from_labels(torch.stack([labels[:count], labels[:count].roll(-1, dims=0)], dim=1))

    def describe(index: Tensor) -> Float[Tensor, "index both"]:
        images = studio.render(z[index], cameras.map(lambda t: t[index])).images
        return extractor(images.flatten(0, 1).clamp(0, 1)).unflatten(0, (-1, 2)).flatten(1)

    both = studio.share(describe, count, f"{run}: likeness").unflatten(1, (2, -1))
    found = compare_likeness(both[:, 0], both[:, 1])
    return {**asdict(found)}


def depth_figures(studio: Studio, truth: DepthTruth, z: Float[Tensor, "scene z_dim"], run: str) -> Figures:
    """Depth maps of generated heads against those of real ones, see :class:`cgsgan.metrics.depth.DepthFigures`.

    Args:
        studio: makes the views, at the cameras of the truth.
        truth: real heads; reduced to the source's resolution where they are larger.
        z: latents; the first ``DEPTH_SCENES`` are looked at.
        run: name of this measurement, for its progress.
    """
    size = min(studio.source.resolution, truth.depths.shape[-1])
    maps = studio.share(
        lambda index: surface_depths(studio, z[index], truth.cameras, size),
        min(DEPTH_SCENES, len(z)),
        f"{run}: depth",
    )
    found = compare_depths(reduce_depths(truth.depths, size), maps)
    return {f"depth_{name}": value if math.isfinite(value) else None for name, value in asdict(found).items()}


def surface_depths(
    studio: Studio, z: Float[Tensor, "scene z_dim"], cameras: Cameras, size: int
) -> Float[Tensor, "scene view size size"]:
    """Expected z-depth of every scene from each of some cameras, NaN where it is not opaque."""
    views = studio.render(z, cameras.map(lambda t: t.expand(len(z), *t.shape)), size=size, depth=True)
    assert views.depths is not None
    return torch.where(views.alphas > OPAQUE, views.depths, torch.nan)[..., 0]
