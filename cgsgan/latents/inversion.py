"""A photograph to a head: the styles that make it, the camera it was taken with, and a generator tuned to it.

Three depths, each starting from the one before: ``w`` (one style for all layers: always a head the generator knows),
``ws`` (a style for every layer, W+ of Abdal et al. 2019) and ``tuned`` (pivotal tuning, Roich et al. 2021: the styles
stay, the generator's weights give way).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.latents.camera_fit import OrbitCameras
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.start import best_angles, best_styles
from cgsgan.latents.style_space import StyleMapping, StyleSpace
from cgsgan.latents.targets import Target
from cgsgan.losses.pyramid import pyramid_loss
from cgsgan.rendering.renderer import Renderer

Depth = Literal["w", "ws", "tuned"]
Look = Callable[[Tensor, Tensor], Tensor]
"""A further distance of pictures in [0, 1], such as a perceptual one."""
Watch = Callable[[int, Tensor], None]
"""Told the step and the pictures of every step."""


@dataclass(frozen=True, kw_only=True)
class InversionConfig:
    """How a photograph is inverted.

    Attributes:
        depth: how far to go.
        w_steps: of the search in W.
        ws_steps: of the search in W+.
        tuning_steps: of pivotal tuning.
        w_lr: in whitened coordinates, where heads are N(0, 1).
        ws_lr: likewise.
        camera_lr: radians.
        tuning_lr: of the generator's weights.
        prior_weight: on the mean square of the coordinates: stay among the heads the generator knows.
        spread_weight: on the mean square of the differences between the rows of W+.
        candidates: random heads that the start is chosen from.
        seed: of candidates and backgrounds.
    """

    depth: Depth = "tuned"
    w_steps: int = 200
    ws_steps: int = 200
    tuning_steps: int = 150
    w_lr: float = 0.05
    ws_lr: float = 0.03
    camera_lr: float = 0.01
    tuning_lr: float = 1e-3
    prior_weight: float = 0.002
    spread_weight: float = 0.01
    candidates: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.w_steps, self.ws_steps, self.tuning_steps, self.candidates) < 1:
            raise ValueError("inversion: steps and candidates must be >= 1")


@dataclass(kw_only=True)
class Inversion:
    """A head that was found.

    Attributes:
        ws: its styles.
        cameras: of the views, ``[1, view]``: given or found.
        network: the generator that makes it: the one that was given, or a tuned copy.
        losses: picture losses of all steps.
    """

    ws: Float[Tensor, "1 num_ws w_dim"]
    cameras: Cameras
    network: nn.Module
    losses: list[float] = field(default_factory=list)


class Inverter:
    """Finds heads.

    Args:
        network: a generator of any backend: has ``mapping``, ``z_dim``, ``num_ws``, and takes ``ws=``.
        renderer: draws its scenes.
        config: see :class:`InversionConfig`.
        look: a further distance of pictures.
        mapping: latents to styles, for a network whose own mapping wants more than latents.
    """

    def __init__(
        self,
        network: nn.Module,
        renderer: Renderer,
        config: InversionConfig,
        look: Look | None = None,
        *,
        mapping: StyleMapping | None = None,
    ) -> None:
        self.config, self.look = config, look
        self.network = network.eval()
        self.source = SceneSource(network, renderer)
        self.mapping: StyleMapping = network.mapping if mapping is None else mapping  # type: ignore[assignment]
        self.space = StyleSpace.of(self.mapping, int(network.z_dim))  # type: ignore[arg-type]

    def invert(self, target: Target, cameras: Cameras | None = None, *, watch: Watch | None = None) -> Inversion:
        """Find the head of ``target``.

        Args:
            target: views of one person.
            cameras: of the views, ``[1, view]``; None finds them too.
            watch: told of every step.
        """
        config = self.config
        candidates = self._candidates()
        if cameras is None:
            yaw, pitch, start = best_angles(self.source, candidates, target)
            rig: OrbitCameras | None = OrbitCameras(yaw, pitch)
        else:
            start, rig = best_styles(self.source, candidates, target, cameras), None
        state = _Search(self, target, cameras, rig, watch)
        coordinates = self.space.to_coordinates(start[:1])[None]  # [1, 1, w_dim]
        coordinates = state.fit_styles(coordinates, steps=config.w_steps, lr=config.w_lr)
        coordinates = coordinates.expand(-1, int(self.network.num_ws), -1).contiguous()  # type: ignore[arg-type]
        if config.depth != "w":
            coordinates = state.fit_styles(coordinates, steps=config.ws_steps, lr=config.ws_lr)
        ws, network = self.space.to_styles(coordinates), self.network
        if config.depth == "tuned":
            network = state.tune(ws)
        return Inversion(ws=ws, cameras=state.cameras(), network=network, losses=state.losses)

    @torch.no_grad()
    def _candidates(self) -> Float[Tensor, "candidate num_ws w_dim"]:
        stream = torch.Generator().manual_seed(self.config.seed)
        z = torch.randn(self.config.candidates - 1, int(self.network.z_dim), generator=stream)  # type: ignore[arg-type]
        ws = self.mapping(z)
        mean = self.space.mean.expand(1, ws.shape[1], -1)
        return torch.cat([mean, ws])


class _Search:
    """One inversion while it runs: cameras that may be learned, backgrounds, losses."""

    def __init__(
        self,
        inverter: Inverter,
        target: Target,
        given: Cameras | None,
        rig: OrbitCameras | None,
        watch: Watch | None,
    ) -> None:
        self.inverter, self.target, self.given, self.rig, self.watch = inverter, target, given, rig, watch
        self.config = inverter.config
        self.losses: list[float] = []
        self.stream = torch.Generator().manual_seed(inverter.config.seed + 1)

    def cameras(self) -> Cameras:
        """Given, or as found by now."""
        if self.rig is None:
            assert self.given is not None
            return self.given
        with torch.no_grad():
            return self.rig()

    def fit_styles(self, start: Tensor, *, steps: int, lr: float) -> Tensor:
        """Whitened coordinates ``[1, row, w_dim]`` (one row for all, or one for each) that make the target."""
        config, space = self.config, self.inverter.space
        coordinates = start.detach().clone().requires_grad_()
        rows = int(self.inverter.network.num_ws)  # type: ignore[arg-type]
        groups = [{"params": [coordinates], "lr": lr}]
        if self.rig is not None:
            groups.append({"params": list(self.rig.parameters()), "lr": config.camera_lr})
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        for _ in _fading(optimizer, steps):
            ws = space.to_styles(coordinates).expand(-1, rows, -1)
            loss = self._picture_loss(self.inverter.source, ws, self.rig() if self.rig else self.cameras())
            loss = loss + config.prior_weight * coordinates.square().mean()
            if coordinates.shape[1] > 1:
                spread = coordinates - coordinates.mean(dim=1, keepdim=True)
                loss = loss + config.spread_weight * spread.square().mean()
            if self.rig is not None:
                loss = loss + 0.01 * self.rig.penalty()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return coordinates.detach()

    def tune(self, ws: Tensor) -> nn.Module:
        """A copy of the generator that makes the target of these styles better; everything else hardly changes."""
        network = copy.deepcopy(self.inverter.network).requires_grad_(True)
        network.mapping.requires_grad_(False)  # type: ignore[union-attr]
        weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.config.tuning_lr, betas=(0.9, 0.99))
        source = SceneSource(network, self.inverter.source.renderer)
        cameras = self.cameras()
        for _ in _fading(optimizer, self.config.tuning_steps):
            loss = self._picture_loss(source, ws, cameras)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return network.eval().requires_grad_(False)

    def _picture_loss(self, source: SceneSource, ws: Tensor, cameras: Cameras) -> Tensor:
        backgrounds = self.target.draw_backgrounds(self.stream)
        images = source.render(ws, cameras, backgrounds, size=self.target.size)[0]
        wanted = self.target.on(backgrounds)
        loss = pyramid_loss(images, wanted)
        if self.inverter.look is not None:
            loss = loss + self.inverter.look(images, wanted)
        self.losses.append(float(loss.detach()))
        if self.watch is not None:
            self.watch(len(self.losses), images.detach())
        return loss


def _fading(optimizer: torch.optim.Optimizer, steps: int, *, warm: float = 0.05, fade: float = 0.4) -> Iterator[int]:
    """Step numbers, while the rates rise over the first share of the steps and fall by a cosine over the last."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        progress = (step + 1) / steps
        factor = min(1.0, progress / warm) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - progress) / fade + 1e-3)))
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * factor
        yield step
