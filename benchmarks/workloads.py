"""Seeded scenes of the sizes that matter: heads as a trained generator makes them, and small ones as in training.

A head is a perturbed ellipsoid's shell (semi-axes 0.19, 0.26, 0.20) seen from 2.7 away with a focal length of 4.2647
image widths. Scales are log-normal around a median given in pixels, the third axis flatter; opacities are
sigmoid(N(0.5, 1.5)). No trained checkpoint is in these numbers: they stand in for one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SEMI_AXES = (0.19, 0.26, 0.20)
CAMERA_DISTANCE = 2.7
FOCAL = 4.2647  # image widths
SCALE_SPREAD = 0.5  # standard deviation of log scale
FLATNESS = 0.35  # third axis against the other two


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One size of problem; ``median_scale`` in pixels."""

    name: str
    size: int
    gaussians: int
    median_scale: float
    batch: int = 1
    views: int = 1

    def scene(self, seed: int = 0) -> dict[str, Any]:
        """Keyword arguments of ``rasterizer.rasterize``: tensors only, leaves that require gradients."""
        random = torch.Generator().manual_seed(seed)
        shape = (self.batch, self.gaussians)

        def normal(*tail: int) -> Tensor:
            return torch.randn(*shape, *tail, generator=random)

        directions = torch.nn.functional.normalize(normal(3), dim=-1)
        shell = 1 + 0.03 * normal(1)
        pixel = CAMERA_DISTANCE / (FOCAL * self.size)  # world units per pixel at the head's distance
        scales = self.median_scale * pixel * torch.exp(SCALE_SPREAD * normal(3))
        scene = {
            "means": directions * shell * torch.tensor(SEMI_AXES),
            "quats": normal(4),
            "scales": scales * torch.tensor([1.0, 1.0, FLATNESS]),
            "opacities": torch.sigmoid(0.5 + 1.5 * normal()),
            "colors": torch.rand(*shape, 3, generator=random),
            "viewmats": self.cameras(),
            "Ks": self.intrinsics(),
            "backgrounds": torch.rand(self.batch, self.views, 3, generator=random),
        }
        leaves = ("means", "quats", "scales", "opacities", "colors")
        return {name: tensor.requires_grad_(name in leaves) for name, tensor in scene.items()}

    def cameras(self) -> Tensor:
        """World-to-camera matrices [B, V, 4, 4] on a circle of yaw angles around the front."""
        count = self.batch * self.views
        viewmats = torch.eye(4).repeat(count, 1, 1)
        for i in range(count):
            yaw = 0.35 * math.sin(1.0 + 2.4 * i)
            cos, sin = math.cos(yaw), math.sin(yaw)
            viewmats[i, :3, :3] = torch.tensor([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        viewmats[:, 2, 3] = CAMERA_DISTANCE
        return viewmats.unflatten(0, (self.batch, self.views))

    def intrinsics(self) -> Tensor:
        """Intrinsics [B, V, 3, 3] in pixels."""
        focal, half = FOCAL * self.size, 0.5 * self.size
        K = torch.tensor([[focal, 0.0, half], [0.0, focal, half], [0.0, 0.0, 1.0]])
        return K.repeat(self.batch, self.views, 1, 1)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(name="training", size=64, gaussians=1856, median_scale=1.5, batch=16),
        Workload(name="small", size=256, gaussians=109_000, median_scale=0.8),
        Workload(name="fine", size=512, gaussians=240_000, median_scale=0.8),
        Workload(name="mid", size=512, gaussians=240_000, median_scale=1.6),
        Workload(name="coarse", size=512, gaussians=240_000, median_scale=3.2),
        Workload(name="large", size=1024, gaussians=502_000, median_scale=3.2),
        Workload(name="huge", size=2048, gaussians=1_030_000, median_scale=3.2),
        Workload(name="batch", size=512, gaussians=240_000, median_scale=1.6, batch=8, views=4),
        Workload(name="sparse", size=512, gaussians=100_000, median_scale=2.5),
        Workload(name="level", size=512, gaussians=60_000, median_scale=3.2),
    )
}
