"""Colours above 1 brought within [0, 1], so that viewers that cut them off show what the renderer shows.

A generator may make a Gaussian brighter than white; most viewers, and some formats, cut every splat's colour off at 1,
and the head is paler there. One of colour 2 and opacity 0.4 has no exact replacement: it adds more light than it hides.
So colours, opacities, sizes and rotations are fitted together to pictures of the scene from all around (Adam, squared
errors). Centres stay, because the order of drawing would change with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import ORBIT_RADIUS, Cameras, orbit
from cgsgan.export.page_pictures import frame_scene
from cgsgan.export.scene import OPACITY_MARGIN, PRUNE_OPACITY, SMALLEST_SCALE, ExportOptions, check_scene
from cgsgan.types import Gaussians

VIEWER_TAIL = 0.985
"""Viewers end a Gaussian at 2.83 standard deviations, some pull it down to 0 there, which takes 2 to 7 % of what it
covers; a fitted scene is right for Gaussians that are this much smaller."""
RATES = {"colors": 0.02, "opacities": 0.06, "scales": 0.02, "quats": 0.005}
"""Of Adam: colours; logits of opacities; logarithms of scales; unit quaternions. Falls to 3 % along a cosine."""
VIEWS_AT_ONCE, POOL, MEASURED = 4, 64, 16
LARGE_SCENE = 20_000
"""Gaussians; from here on pictures are larger and steps fewer."""
LOWPASS = 0.1
"""Square pixels, so that Gaussians far smaller than a pixel do not flicker."""
HARMLESS = 50.0
"""Decibels: when cutting colours off changes less, nothing else is fitted."""


@dataclass(frozen=True, kw_only=True)
class ColorFit:
    """A scene with colours in [0, 1].

    Attributes:
        scene: to be written with the same dilation.
        cut: PSNR in dB between pictures of the given scene and of one whose colours are merely cut off, from views
            around the front that were not fitted, on black and white; infinite when all colours were in [0, 1].
        fitted: the same of the fitted scene.
    """

    scene: Gaussians
    cut: float
    fitted: float

    def __str__(self) -> str:
        """One line for people."""
        return f"colours above 1 fitted into [0, 1]: {self.fitted:.1f} dB to the original, {self.cut:.1f} if cut off"


def fit_colors(gaussians: Gaussians, *, dilation: float | int = 0.0) -> ColorFit:
    """Fit a scene whose colours leave [0, 1] into what viewers can show; the same bits for any number of threads.

    >>> generator = cgsgan.load_generator()
    >>> fit = cgsgan.fit_colors(generator.sample(3).scene(0), dilation=generator.dilation)
    >>> fit.fitted > fit.cut + 3
    True

    Args:
        gaussians: one scene without a batch axis, RGB, in this library's world.
        dilation: the ``extra_dilation`` it will be written with, world units.

    Returns:
        The scene on the CPU, or as it was if all colours are in [0, 1]; and how near it comes.

    Raises:
        ValueError: as :func:`cgsgan.export.scene.prepare_scene`.
    """
    check_scene(gaussians, ExportOptions(prune=0.0, extra_dilation=dilation), writer="fit_colors")
    if float(gaussians.colors.min()) >= 0 and float(gaussians.colors.max()) <= 1:
        return ColorFit(scene=gaussians, cut=math.inf, fitted=math.inf)
    given = gaussians.map(lambda tensor: tensor.detach().cpu().float())
    before = replace(given, colors=given.colors.clamp(0, 1))
    stage = _Stage(given, float(dilation))
    cut = stage.compare(before)
    if cut >= HARMLESS:
        return ColorFit(scene=before, cut=cut, fitted=cut)
    after = stage.fit(before)
    fitted = stage.compare(after)
    return (
        ColorFit(scene=after, cut=cut, fitted=fitted) if fitted > cut else ColorFit(scene=before, cut=cut, fitted=cut)
    )


class _Stage:
    """A scene brought before the cameras of heads, and its pictures from there."""

    def __init__(self, truth: Gaussians, dilation: float) -> None:
        framing = frame_scene(truth.means, generated=False)
        self.target, self.size_factor = torch.tensor(framing.target), ORBIT_RADIUS / framing.radius
        self.dilation = dilation
        large = truth.count > LARGE_SCENE
        self.pixels, self.steps = (256, 60) if large else (128, 120)
        around = _scatter(POOL // 2, yaw=math.pi, pitch=0.6, seed=1)
        front = _scatter(POOL // 2, yaw=1.0, pitch=0.5, seed=2)
        self.pool = Cameras(
            viewmats=torch.cat([around.viewmats, front.viewmats]),
            Ks_normalized=torch.cat([around.Ks_normalized, front.Ks_normalized]),
        )
        self.measured = _scatter(MEASURED, yaw=0.8, pitch=0.4, seed=3)
        with torch.no_grad():
            self.wanted = self.draw(truth, self.pool).clamp(0, 1)
            self.known = self.draw(truth, self.measured)

    def draw(self, scene: Gaussians, cameras: Cameras, tail: float = 1.0) -> Float[Tensor, "view height width 4"]:
        """Colours times coverage, and coverage."""
        from rasterizer import rasterize  # the compiled core loads when the first picture is drawn

        scales = torch.hypot(scene.scales, torch.tensor(self.dilation)) * (tail * self.size_factor)
        render = rasterize(
            *((scene.means - self.target) * self.size_factor, scene.quats, scales, scene.opacities, scene.colors),
            *(cameras.viewmats, cameras.Ks(self.pixels, self.pixels), self.pixels, self.pixels),
            eps2d=LOWPASS,
        )
        return torch.cat([render.colors, render.alphas], dim=-1)

    @torch.no_grad()
    def compare(self, scene: Gaussians) -> float:
        """PSNR on black and white, dB."""
        errors = []
        shown = self.draw(scene, self.measured, 1.0)
        for ground in (0.0, 1.0):
            pictures = [(p[..., :3] + (1 - p[..., 3:]) * ground).clamp(0, 1) for p in (shown, self.known)]
            errors.append((pictures[0] - pictures[1]).square().mean())
        return -10 * math.log10(max(float(torch.stack(errors).mean()), 1e-10))

    @torch.enable_grad()
    def fit(self, start: Gaussians) -> Gaussians:
        """The nearest scene with colours in [0, 1]."""
        raw = {
            "colors": start.colors.clone(),
            "opacities": torch.logit(start.opacities.clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN)),
            "scales": start.scales.clamp_min(SMALLEST_SCALE).log(),
            "quats": torch.nn.functional.normalize(start.quats, dim=-1),
        }
        groups = [{"params": [values.requires_grad_()], "rate": RATES[name]} for name, values in raw.items()]
        adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12)
        for step, rows in zip(range(self.steps), _batches()):
            for group in adam.param_groups:
                group["lr"] = group["rate"] * (0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * step / self.steps)))
            shown = self.draw(_activate(start, raw), self.pool.map(lambda tensor: tensor[rows]), VIEWER_TAIL)  # noqa: B023
            color, alpha = (shown - self.wanted[rows]).split([3, 1], dim=-1)
            # The mean of (color - ground * alpha)^2 over grounds from black to white.
            loss = (color.square() - color * alpha + alpha.square() / 3).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
            raw["colors"].data.clamp_(0, 1)
        found = _activate(start, raw).map(lambda tensor: tensor.detach())
        # As many are visible as were: none falls below what the export leaves out, none rises above it.
        visible = found.opacities.clamp_min(PRUNE_OPACITY)
        return replace(found, opacities=torch.where(start.opacities < PRUNE_OPACITY, start.opacities, visible))


def _activate(scene: Gaussians, raw: dict[str, Tensor]) -> Gaussians:
    return replace(
        scene,
        colors=raw["colors"],
        opacities=raw["opacities"].sigmoid(),
        scales=raw["scales"].exp(),
        quats=raw["quats"],
    )


def _scatter(count: int, *, yaw: float, pitch: float, seed: int) -> Cameras:
    """Cameras evenly over a patch around the front, from -yaw to yaw and -pitch to pitch (radians)."""
    shares = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed).draw(count) * 2 - 1
    return orbit(yaw * shares[:, 0], pitch * shares[:, 1])


def _batches() -> Iterator[Tensor]:
    """Rows of the pool, shuffled anew each time all were seen."""
    draws = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(POOL, generator=draws).split(VIEWS_AT_ONCE)
