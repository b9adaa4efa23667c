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
from cgsgan.rendering.inspection import surface_normals
from cgsgan.types import RenderOutput, Scenes


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
        scenes, views = self._scenes(z, cameras, conditioning)
        return self._render(scenes, views, size or self.source.resolution, depth=depth)

    @torch.no_grad()
    def render_normals(
        self, z: Float[Tensor, "batch z_dim"], cameras: Cameras, *, size: int
    ) -> tuple[Float[Tensor, "batch view size size 3"], Float[Tensor, "batch view size size 1"]]:
        """Unit normals, world axes, and coverage of views of some latents, on the device."""
        scenes, views = self._scenes(z, cameras, None)
        seen = self._render(scenes, views, size, depth=True)
        assert seen.depths is not None
        return surface_normals(self.source.renderer, scenes, views, seen.depths), seen.alphas

    def _scenes(self, z: Tensor, cameras: Cameras, conditioning: Cameras | None) -> tuple[Scenes, Cameras]:
        device = self.accelerator.device
        views = cameras.map(lambda t: t.to(device))
        told = views.map(lambda t: t[:, 0]) if conditioning is None else conditioning.map(lambda t: t.to(device))
        return self.source(z.to(device), told), views

    def _render(self, scenes: Scenes, views: Cameras, size: int, *, depth: bool) -> RenderOutput:
        white = torch.ones(*views.viewmats.shape[:2], 3, device=self.accelerator.device)
        return self.source.renderer(scenes, views, size=size, backgrounds=white, depth=depth)
