"""Pivotal tuning (Roich et al. 2022): the generator gives way to one photo, and is held to its own picture of the head
from every other side.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import Cameras, orbit
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.targets import Target
from cgsgan.losses.pyramid import pyramid_loss

ANCHOR_VIEWS = 24
ANCHORS_AT_ONCE = 2
ANCHOR_YAW, ANCHOR_PITCH = math.radians(65), math.radians(20)


@dataclass(frozen=True)
class Anchors:
    """What the head looked like, from many sides, before the generator was tuned to it.

    Attributes:
        cameras: ``[1, anchor]``.
        pictures: of the head as found.
    """

    cameras: Cameras
    pictures: Target

    @staticmethod
    @torch.no_grad()
    def of(source: SceneSource, ws: Float[Tensor, "1 num_ws w_dim"], size: int, stream: torch.Generator) -> Anchors:
        """Look at the head of ``ws`` from random sides of the training poses' range.

        Args:
            source: before tuning.
            ws: the pivot.
            size: pixels.
            stream: of the sides; on the CPU.
        """
        angles = (2 * torch.rand(2, ANCHOR_VIEWS, generator=stream) - 1).to(source.device)
        cameras = orbit(ANCHOR_YAW * angles[0], ANCHOR_PITCH * angles[1]).map(lambda t: t[None])
        black = angles.new_zeros(1, ANCHOR_VIEWS, 3)
        seen = source.renderer(source.network(ws=ws).scenes, cameras, size=size, backgrounds=black)
        colors, alphas = seen.images[0].clamp(0, 1), seen.alphas[0].movedim(-1, 1).clamp(0, 1)
        return Anchors(cameras, Target(colors=colors, alphas=alphas))

    def draw(self, stream: torch.Generator) -> tuple[Cameras, Target]:
        """A few of them."""
        chosen = torch.randperm(ANCHOR_VIEWS, generator=stream)[:ANCHORS_AT_ONCE].to(self.pictures.colors.device)
        assert self.pictures.alphas is not None
        pictures = Target(colors=self.pictures.colors[chosen], alphas=self.pictures.alphas[chosen])
        return self.cameras.map(lambda t: t[:, chosen]), pictures


def tunable_copy(network: nn.Module) -> tuple[nn.Module, list[nn.Parameter]]:
    """A copy of a generator, and the weights of it that tuning changes: all but those that turn latents into styles."""
    tuned = copy.deepcopy(network).requires_grad_(True)
    tuned.mapping.requires_grad_(False)  # type: ignore[union-attr]
    return tuned, [parameter for parameter in tuned.parameters() if parameter.requires_grad]


def anchored_loss(
    images: Float[Tensor, "view 3 height width"], anchors: Target, backgrounds: Float[Tensor, "view 3"]
) -> Float[Tensor, ""]:
    """How far the head has moved from what it was, seen from the anchors' sides."""
    return pyramid_loss(images, anchors.on(backgrounds))


def fading(optimizer: torch.optim.Optimizer, steps: int, *, warm: float = 0.05, fade: float = 0.4) -> Iterator[int]:
    """Step numbers, while the rates rise over the first share of the steps and fall by a cosine over the last."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        progress = (step + 1) / steps
        factor = min(1.0, progress / warm) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - progress) / fade + 1e-3)))
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * factor
        yield step
