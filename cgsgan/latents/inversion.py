"""A photograph to a head: the styles that make it, the camera it was taken with, and a generator tuned to it.

Three depths, each starting from the one before: ``w`` (one style for all layers: always a head the generator knows),
``ws`` (a style for every layer, W+ of Abdal et al. 2019) and ``tuned`` (pivotal tuning, Roich et al. 2021: the styles
stay, the generator's weights give way).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import Cameras
from cgsgan.latents.camera_fit import OrbitCameras
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.start import best_angles, guess_style
from cgsgan.latents.style_space import StyleMapping, StyleSpace
from cgsgan.latents.targets import Target
from cgsgan.latents.tuning import Anchors, anchored_loss, fading, tunable_copy
from cgsgan.losses.pyramid import pyramid_loss
from cgsgan.rendering.renderer import Renderer

Depth = Literal["w", "ws", "tuned"]
Look = Callable[[Tensor, Tensor], Tensor]
"""A further distance of pictures in [0, 1], such as a perceptual one."""
Watch = Callable[[int, Tensor], None]
"""Told the step and the pictures of every step, on what :attr:`Target.shown_on` says."""


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
        keep_weight: in tuning, on the pictures from other sides, which are to stay as they were.
        candidates: random heads that the start is guessed from.
        angle_candidates: of these, how many are tried with every camera, where none is given.
        seed: of candidates and backgrounds.
    """

    depth: Depth = "tuned"
    w_steps: int = 150
    ws_steps: int = 100
    tuning_steps: int = 100
    w_lr: float = 0.1
    ws_lr: float = 0.03
    camera_lr: float = 0.01
    tuning_lr: float = 1e-3
    prior_weight: float = 0.001
    spread_weight: float = 0.01
    keep_weight: float = 0.2
    candidates: int = 512
    angle_candidates: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.w_steps, self.ws_steps, self.tuning_steps, self.candidates, self.angle_candidates) < 1:
            raise ValueError("inversion: steps and candidates must be >= 1")


@dataclass(kw_only=True)
class Inversion:
    """A head that was found.

    Attributes:
        depth: how far it went.
        ws: its styles.
        cameras: of the views, ``[1, view]``: given or found.
        network: the generator that makes it: the one that was given, or a tuned copy.
        losses: picture losses of all steps.
    """

    depth: Depth
    ws: Float[Tensor, "1 num_ws w_dim"]
    cameras: Cameras
    network: nn.Module
    losses: list[float] = field(default_factory=list)


class Inverter:
    """Finds heads.

    Args:
        network: a generator of any backend: has ``mapping``, ``z_dim``, ``num_ws``, and takes ``ws=``. Where it is,
            targets and cameras are to be.
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
        self.rows = int(network.num_ws)  # type: ignore[arg-type]
        self.mapping: StyleMapping = network.mapping if mapping is None else mapping  # type: ignore[assignment]
        self.space = StyleSpace.of(self.mapping, int(network.z_dim), device=self.source.device)  # type: ignore[arg-type]

    def invert(self, target: Target, cameras: Cameras | None = None, *, watch: Watch | None = None) -> Inversion:
        """Find the head of ``target``, as deep as the config says.

        Args:
            target: views of one person.
            cameras: of the views, ``[1, view]``; None finds them too.
            watch: told of every step.
        """
        return list(self.stages(target, cameras, watch=watch))[-1]

    def stages(
        self, target: Target, cameras: Cameras | None = None, *, watch: Watch | None = None
    ) -> Iterator[Inversion]:
        """What each depth finds on the way, in their order; see :meth:`invert`."""
        config, rows = self.config, self.rows
        candidates = self._candidates()
        rig: OrbitCameras | None = None
        if cameras is None:
            rig = OrbitCameras(*best_angles(self.source, candidates[: config.angle_candidates], target))
        search = _Search(self, target, cameras, rig, watch)
        start = guess_style(self.source, self.space, candidates, target, search.cameras())
        coordinates = search.fit_styles(start[None, None], steps=config.w_steps, lr=config.w_lr).expand(-1, rows, -1)
        yield search.report("w", self.space.to_styles(coordinates))
        if config.depth == "w":
            return
        coordinates = search.fit_styles(coordinates.contiguous(), steps=config.ws_steps, lr=config.ws_lr)
        ws = self.space.to_styles(coordinates)
        yield search.report("ws", ws)
        if config.depth == "tuned":
            yield search.report("tuned", ws, search.tune(ws))

    @torch.no_grad()
    def _candidates(self) -> Float[Tensor, "candidate w_dim"]:
        stream = torch.Generator().manual_seed(self.config.seed)
        z = torch.randn(self.config.candidates - 1, int(self.network.z_dim), generator=stream)  # type: ignore[arg-type]
        return torch.cat([self.space.mean[None], self.mapping(z.to(self.source.device))[:, 0]])


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

    def report(self, depth: Depth, ws: Tensor, network: nn.Module | None = None) -> Inversion:
        """What was found by now."""
        network = network or self.inverter.network
        return Inversion(depth=depth, ws=ws, cameras=self.cameras(), network=network, losses=list(self.losses))

    def fit_styles(self, start: Tensor, *, steps: int, lr: float) -> Tensor:
        """Whitened coordinates ``[1, row, w_dim]`` (one row for all, or one for each) that make the target."""
        config, space = self.config, self.inverter.space
        coordinates = start.detach().clone().requires_grad_()
        groups = [{"params": [coordinates], "lr": lr}]
        if self.rig is not None:
            groups.append({"params": list(self.rig.parameters()), "lr": config.camera_lr})
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        for _ in fading(optimizer, steps):
            ws = space.to_styles(coordinates).expand(-1, self.inverter.rows, -1)
            cameras = self.rig() if self.rig else self.cameras()
            loss = self._picture_loss(self.inverter.source, ws, cameras)
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
        config, source = self.config, self.inverter.source
        anchors = Anchors.of(source, ws, self.target.size, self.stream) if config.keep_weight > 0 else None
        network, weights = tunable_copy(self.inverter.network)
        optimizer = torch.optim.Adam(weights, lr=config.tuning_lr, betas=(0.9, 0.99))
        tuned, cameras = SceneSource(network, source.renderer), self.cameras()
        for _ in fading(optimizer, config.tuning_steps):
            loss = self._picture_loss(tuned, ws, cameras, anchors)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return network.eval().requires_grad_(False)

    def _picture_loss(
        self, source: SceneSource, ws: Tensor, cameras: Cameras, anchors: Anchors | None = None
    ) -> Tensor:
        """Distance to the target; with anchors, also to what the head was from their sides, in the same pass."""
        views = self.target.views
        backgrounds = self.target.draw_backgrounds(self.stream)
        sides = None
        if anchors is not None:
            more, sides = anchors.draw(self.stream)
            cameras = cat_views(cameras, more)
            backgrounds = torch.cat([backgrounds, backgrounds[:1].expand(sides.views, 3)])
        drawn = source.draw(ws, cameras, backgrounds, size=self.target.size)
        images = drawn.images[0]
        wanted = self.target.on(backgrounds[:views])
        loss = pyramid_loss(images[:views], wanted)
        if self.inverter.look is not None:
            loss = loss + self.inverter.look(images[:views], wanted)
        self.losses.append(float(loss.detach()))
        if self.watch is not None:
            through = (1 - drawn.alphas[0, :views].detach()).movedim(-1, 1)
            shown = self.target.shown_on - backgrounds[:views]  # not on the random colours, which would flicker
            self.watch(len(self.losses), images[:views].detach() + through * shown[:, :, None, None])
        if sides is not None:
            loss = loss + self.config.keep_weight * anchored_loss(images[views:], sides, backgrounds[views:])
        return loss


def cat_views(first: Cameras, second: Cameras) -> Cameras:
    """The views ``[1, view]`` of both."""
    viewmats = torch.cat([first.viewmats, second.viewmats], dim=1)
    return Cameras(viewmats=viewmats, Ks_normalized=torch.cat([first.Ks_normalized, second.Ks_normalized], dim=1))
