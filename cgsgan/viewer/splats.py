"""Gaussians as viser sends them to pages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cgsgan.types import Gaussians
from rasterizer.reference_projection import rotation_matrices

ENLARGEMENT = 32.0
"""Scenes are sent this much larger, with the inverse as the node's scale: covariances travel as half floats, whose
precision ends at standard deviations of 0.001."""
LARGEST_COVARIANCE = 6e4
SMALLEST_OPACITY = 1 / 255


def splat_arrays(scene: Gaussians, dilation: float) -> dict[str, np.ndarray]:
    """Arguments of viser's ``set_gaussians``, without what nobody could see.

    Args:
        scene: one, without a batch axis.
        dilation: of the renderer, a standard deviation in world units, which the page does not know.
    """
    seen = scene.opacities >= SMALLEST_OPACITY
    scene = scene.map(lambda tensor: tensor[seen].float().cpu())
    variances = (scene.scales.square() + dilation**2) * ENLARGEMENT**2
    rotations = rotation_matrices(scene.quats)
    covariances = rotations @ torch.diag_embed(variances) @ rotations.mT
    return {
        "centers": (scene.means * ENLARGEMENT).numpy(),
        "covariances": covariances.clamp(-LARGEST_COVARIANCE, LARGEST_COVARIANCE).numpy(),
        "rgbs": scene.colors[:, :3].clamp(0, 1).numpy(),
        "opacities": scene.opacities[:, None].clamp(0, 1).numpy(),
    }


def add_splats(scene_api: Any, name: str) -> Any:
    """An empty node for :func:`splat_arrays`; returns its handle."""
    nothing = Gaussians(
        means=torch.zeros(1, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 1e-3),
        opacities=torch.ones(1),
        colors=torch.ones(1, 3),
    )
    return scene_api.add_gaussian_splats(name, **splat_arrays(nothing, 0.0), scale=1 / ENLARGEMENT)
