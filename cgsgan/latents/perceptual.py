"""Distance of pictures as a pretrained network sees them (after Zhang et al. 2018, LPIPS, without its learned
weights).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.metrics.timm_models import TimmModel, open_timm
from cgsgan.metrics.weight_files import ExtractorError

DEPTHS = 4
"""Layers that are compared, the last so many that the network offers."""


class PerceptualDistance:
    """Mean squared difference of unit-length features at several depths of a timm network.

    Args:
        model: any that gives intermediate features.
        weight: factor on the distance.
    """

    def __init__(self, model: TimmModel, weight: float = 1.0) -> None:
        self.model, self.weight = model, weight
        if not hasattr(model.network, "forward_intermediates"):
            raise ExtractorError(f"--look: {model.name} gives no intermediate features; take a ViT or a ResNet of timm")

    @staticmethod
    def open(name: str, weights: Path | None, device: torch.device | str = "cpu") -> PerceptualDistance:
        """By name, with weights from a file, or downloaded.

        Raises:
            ExtractorError: says which package, file or download is missing and how to get it.
        """
        return PerceptualDistance(open_timm(name, weights, device, option="--look", options={"num_classes": 0}))

    def __call__(
        self, images: Float[Tensor, "image 3 height width"], targets: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, ""]:
        """Distance of RGB pictures in [0, 1], with a gradient to ``images``."""
        with torch.no_grad():
            wanted = self._features(targets)
        found = self._features(images)
        terms = [(a - b).square().sum(dim=1).mean() for a, b in zip(found, wanted)]
        return self.weight * torch.stack(terms).mean()

    def _features(self, images: Tensor) -> list[Tensor]:
        network: Any = self.model.network
        maps = network.forward_intermediates(self.model.prepare(images), indices=DEPTHS, intermediates_only=True)
        return [torch.nn.functional.normalize(features, dim=1) for features in maps]
