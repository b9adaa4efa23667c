"""Makes pictures of a source of scenes, every process its share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.evaluation.scenes import SceneSource
from cgsgan.types import RenderOutput


@dataclass(frozen=True)
class Studio:
    """Pictures on white, by all processes.

    Attributes:
        source: of the scenes.
        accelerator: processes and device.
        batch_size: pictures made at once per process; changes memory and speed.
        progress: told of what is done by the main process.
    """

    source: SceneSource
    accelerator: Accelerator
    batch_size: int = 64
    progress: Progress = ignore_progress

    def share(self, make: Callable[[Tensor], Tensor], count: int, task: str) -> Tensor:
        """``make`` for positions 0 to ``count``, each process its share; all of it, in order, on every process."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # Everybody makes equally many: the last ones wrap around and are cut off again.
        each = -(-count // world)
        mine = (torch.arange(each) * world + rank) % count
        parts: list[Tensor] = []
        for part in torch.split(mine, self.batch_size):
            parts.append(make(part).to(self.accelerator.device))
            if self.accelerator.is_main_process:
                self.progress(task, min(count, world * sum(len(p) for p in parts)), count)
        gathered = self.accelerator.gather(torch.cat(parts))
        assert isinstance(gathered, Tensor)
        return gathered.unflatten(0, (world, each)).transpose(0, 1).flatten(0, 1)[:count].cpu()

    @torch.no_grad()
    def render(
        self,
        z: Float[Tensor, "batch z_dim"],
        cameras: Cameras,
        *,
        conditioning: Cameras | None = None,
        size: int | None = None,
        depth: bool = False,
    ) -> RenderOutput:
        """Views of the scenes of some latents, on white, on the device.

        Args:
            z: latents.
            cameras: ``[batch, view]``.
            conditioning: ``[batch]``, what a camera-conditioned source is told; default the first view, once for all
                views: they are views of one scene.
            size: pixels; default the source's resolution.
            depth: also give depths.
        """
        device = self.accelerator.device
        views = cameras.map(lambda t: t.to(device))
        told = views.map(lambda t: t[:, 0]) if conditioning is None else conditioning.map(lambda t: t.to(device))
        white = torch.ones(*views.viewmats.shape[:2], 3, device=device)
        scenes = self.source(z.to(device), told)
        return self.source.renderer(scenes, views, size=size or self.source.resolution, backgrounds=white, depth=depth)
