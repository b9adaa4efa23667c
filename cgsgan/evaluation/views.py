"""Figures of several views of one scene, held against each other."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import orbit
from cgsgan.evaluation.studio import Studio
from cgsgan.metrics.consistency import reprojection_errors
from cgsgan.metrics.figures import Figures

CONSISTENCY_SCENES = 128
CONSISTENCY_PAIRS = {"10": ((-5.0, 0.0), (5.0, 0.0)), "30": ((-15.0, 0.0), (15.0, 0.0))}
"""Degrees between two views: yaw and pitch of both."""


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
