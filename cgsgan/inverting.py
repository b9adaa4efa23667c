"""From photographs to files: a head is found, and a generator that makes it is written, with pictures of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.config import config_to_dict
from cgsgan.data.progress import Progress, ignore_progress
from cgsgan.export.atomic import atomic_path
from cgsgan.export.images import make_grid, save_image, to_uint8
from cgsgan.export.video import save_video
from cgsgan.generators import TrainedGenerator
from cgsgan.latents.inversion import Inversion, InversionConfig, Inverter, Look
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.targets import Target
from cgsgan.losses.pyramid import peak_signal_to_noise
from cgsgan.training.generator_file import GENERATOR_FILE, GeneratorFile, write_generator

SIDE_VIEWS = ((-40.0, 0.0), (-20.0, 8.0), (20.0, -8.0), (40.0, 0.0))
"""Yaw and pitch in degrees of the pictures beside the photo's own view."""
FILM_FRAMES = 96
SMALLEST_TILE = 192


@dataclass(kw_only=True)
class FoundHead:
    """An inversion with what was seen of it.

    Attributes:
        inversion: styles, cameras, network.
        images: of the views, as found, on the backgrounds of :attr:`backgrounds`; on the CPU, like all pictures here.
        backgrounds: white where the coverage is known, else the photos' own.
        frames: pictures of the first view while it was found.
    """

    inversion: Inversion
    images: Float[Tensor, "view 3 height width"]
    backgrounds: Float[Tensor, "view 3"]
    frames: list[Tensor] = field(default_factory=list)

    def describe(self, target: Target) -> str:
        """Cameras and fit in a line."""
        fit = peak_signal_to_noise(self.images, target.on(self.backgrounds))
        yaw, pitch = (angle[0].rad2deg().tolist() for angle in yaw_pitch(self.inversion.cameras))
        views = [
            f"yaw {round(y, 1) + 0.0:+.1f} pitch {round(p, 1) + 0.0:+.1f} degrees, PSNR {f:.1f} dB"
            for y, p, f in zip(yaw, pitch, fit.tolist())
        ]
        return "; ".join(views)


def invert_photos(
    generator: TrainedGenerator,
    target: Target,
    cameras: Cameras | None,
    config: InversionConfig,
    *,
    look: Look | None = None,
    progress: Progress = ignore_progress,
) -> FoundHead:
    """Find the head of ``target``.

    Args:
        generator: makes heads.
        target: views of one person, at the generator's size; moved to its device.
        cameras: of the views, ``[1, view]``; None finds them too.
        config: how.
        look: a further distance of pictures.
        progress: called while it is found.
    """
    steps = {"w": 1, "ws": 2, "tuned": 3}[config.depth]
    total = sum((config.w_steps, config.ws_steps, config.tuning_steps)[:steps])
    every = max(1, total // FILM_FRAMES)
    frames: list[Tensor] = []

    def watch(step: int, images: Tensor) -> None:
        progress("finding the head", step, total)
        if step % every == 0 or step == total:
            frames.append(images[0].clamp(0, 1).cpu())

    inverter = Inverter(generator.network, generator.renderer, config, look, mapping=generator.map_latents)
    device = inverter.source.device
    target = target.to(device)
    cameras = None if cameras is None else cameras.map(lambda t: t.to(device))
    found = inverter.invert(target, cameras, watch=watch)
    backgrounds = target.shown_on
    source = SceneSource(found.network, generator.renderer)
    with torch.no_grad():
        images = source.render(found.ws, found.cameras, backgrounds, size=target.size)[0].clamp(0, 1)
    return FoundHead(inversion=found, images=images.cpu(), backgrounds=backgrounds.cpu(), frames=frames)


def save_inverted(
    out: Path, generator: TrainedGenerator, target: Target, head: FoundHead, *, film: bool = False
) -> dict[Path, str]:
    """Write a generator that makes the head, and pictures of it.

    Args:
        out: folder; files in it are replaced.
        generator: that it was found with.
        target: the photos.
        head: what was found.
        film: also write how it was found.

    Returns:
        The files, each with what it is.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "progress.webp").unlink(missing_ok=True)  # of another head, it would be taken for this one's
    written = {out / GENERATOR_FILE: "the generator and the head; render, export and mesh take this folder"}
    stored = GeneratorFile(
        config=config_to_dict(generator.config),
        images_seen=generator.images_seen,
        weights=head.inversion.network.state_dict(),
        provenance=generator.provenance,
        heads={"ws": head.inversion.ws, "camera_labels": head.inversion.cameras.to_labels()[0]},
    )
    with atomic_path(out / GENERATOR_FILE) as path:
        write_generator(path, stored)
    written[out / "comparison.png"] = "photo, head as found, and the head from four other sides"
    save_image(out / "comparison.png", _comparison(generator, target, head))
    if film:
        written[out / "progress.webp"] = "the photo, and the head while it was found"
        photo = target.on(head.backgrounds)[0]
        pairs = (make_grid(torch.stack([photo, frame]), columns=2) for frame in head.frames)
        frames = (to_uint8(_enlarged(pair, target.size)) for pair in pairs)
        save_video(out / "progress.webp", frames, fps=24)
    return written


@torch.no_grad()
def _comparison(generator: TrainedGenerator, target: Target, head: FoundHead) -> Float[Tensor, "3 height width"]:
    source = SceneSource(head.inversion.network, generator.renderer)
    angles = torch.tensor(SIDE_VIEWS, device=source.device).mul(math.pi / 180)
    sides = orbit(angles[:, 0], angles[:, 1]).map(lambda t: t[None])
    backgrounds = head.backgrounds[:1].expand(len(SIDE_VIEWS), -1).to(source.device)
    around = source.render(head.inversion.ws, sides, backgrounds, size=target.size)[0].cpu()
    rows = [
        torch.stack([photo, image, *around])
        for photo, image in zip(target.on(head.backgrounds), head.images, strict=True)
    ]
    return _enlarged(make_grid(torch.cat(rows).clamp(0, 1), columns=2 + len(SIDE_VIEWS)), target.size)


def _enlarged(picture: Tensor, tile: int) -> Tensor:
    factor = max(1, round(SMALLEST_TILE / tile))
    return picture.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
