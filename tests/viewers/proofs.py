"""Which files are opened in which viewers, and how near their pictures must come to ours.

The gates are the measured distances with room: a wrong half-turn or mirroring gives 15 to 22 dB, sizes or colours that
are off by a few per cent fall through too. Viewers differ from a rasterizer by their own choice: where they cut a
Gaussian off (PlayCanvas and Spark pull its tail down to 0 there), and whether they compensate opacities for the
0.3 square pixels that all of them add, so pictures are compared with both of our renders.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import ORBIT_RADIUS
from cgsgan.export import ExportOptions, fit_colors, write_splats
from cgsgan.gallery import generate_scenes, latents_from_seeds
from cgsgan.generators import TrainedGenerator
from cgsgan.types import Gaussians
from tests.viewers.clients import Summary, bundle_page, render_in_page, render_in_splat_transform, render_in_supersplat
from tests.viewers.pictures import THREE_QUARTER, View, draw, psnr, ssim

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZE = 320
HEAD_SEED = 3
HEAD_VIEW = View(name="head", yaw=35.0, pitch=15.0, radius=ORBIT_RADIUS, fov=13.37)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a viewer must reach: one of the decibels, and the structural similarity of that picture.

    Attributes:
        std: PSNR against our render as 3DGS does it; None: does not count.
        aa: PSNR against our render with compensated opacities; None: does not count.
        ssim: against the nearer of both.
    """

    std: float | None = None
    aa: float | None = None
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How near a picture came to ours: decibels and structural similarity, against both renders."""

    std: float
    aa: float
    ssim: float

    def failure(self, gate: Gate) -> str | None:
        """Which gate is missed, or None."""
        near = any(floor is not None and value >= floor for value, floor in ((self.std, gate.std), (self.aa, gate.aa)))
        return None if near and self.ssim >= gate.ssim else f"{self} misses {gate}"


GATES = {
    "splat-transform": Gate(std=42.0, ssim=0.995),
    "spark": Gate(std=38.0, aa=44.0, ssim=0.99),
    "babylon": Gate(aa=34.0, ssim=0.98),
    "mkkellogg": Gate(std=42.0, ssim=0.99),
    "supersplat": Gate(aa=33.0, ssim=0.97),
}
HEAD_GATES = {
    "splat-transform": Gate(std=38.0, ssim=0.98),
    "spark": Gate(std=38.0, ssim=0.975),
}
"""Heads are layers of large translucent Gaussians, where cut-off tails and the order of drawing show more."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One file in one viewer.

    Attributes:
        client: a key of ``GATES``.
        file: its name; the ending is the format.
        options: how it is written.
        turned: the viewer shows axes as they are, and is told to turn the file.
        extended: Spark is told to keep colours above 1.
        nightly: too slow, or too much of a repetition, for each push.
        view: from where.
    """

    client: str
    file: str
    options: ExportOptions = field(default_factory=lambda: ExportOptions(prune=0.0))
    turned: bool = False
    extended: bool = False
    nightly: bool = False
    view: View = THREE_QUARTER

    @property
    def name(self) -> str:
        """For tables and files."""
        version = str(self.options.spz_version) if self.file.endswith(".spz") else ""
        axes = f", {self.options.axes}" if self.options.axes else ""
        axes += ", extended" if self.extended else ""
        front = "" if self.view in (THREE_QUARTER, HEAD_VIEW) else f", {self.view.name}"
        return f"{self.client}: {self.file.partition('.')[2]}{version}{axes}{front}"


def _spz(version: int) -> ExportOptions:
    return ExportOptions(prune=0.0, spz_version=version)


OPENGL = ExportOptions(prune=0.0, axes="opengl")
PROOFS = (
    Proof(client="splat-transform", file="balls.ply"),
    Proof(client="splat-transform", file="balls.compressed.ply"),
    Proof(client="splat-transform", file="balls.splat"),
    Proof(client="splat-transform", file="balls.spz", options=_spz(2)),
    Proof(client="splat-transform", file="balls.spz", options=_spz(3)),
    Proof(client="splat-transform", file="balls.spz", options=_spz(4)),
    Proof(client="splat-transform", file="balls.sog"),
    Proof(client="spark", file="balls.ply", options=OPENGL),
    Proof(client="spark", file="balls.ply", turned=True, nightly=True),
    Proof(client="spark", file="balls.compressed.ply", turned=True),
    Proof(client="spark", file="balls.splat", turned=True),
    Proof(client="spark", file="balls.spz", options=_spz(2), nightly=True),
    Proof(client="spark", file="balls.spz", options=_spz(3)),
    Proof(client="spark", file="balls.sog", turned=True),
    Proof(client="babylon", file="balls.glb"),
    Proof(client="babylon", file="balls.gltf"),
    Proof(client="babylon", file="balls.ply", nightly=True),
    Proof(client="babylon", file="balls.splat", nightly=True),
    Proof(client="babylon", file="balls.compressed.ply", nightly=True),
    Proof(client="mkkellogg", file="balls.ply", turned=True, nightly=True),
    Proof(client="supersplat", file="balls.ply", nightly=True),
    Proof(client="supersplat", file="balls.sog", nightly=True),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a viewer showed.

    Attributes:
        image: its picture.
        scores: against ours.
        seconds: from the file to the picture.
        summary: of splat-transform alone.
    """

    image: Float[Tensor, "3 size size"]
    scores: Scores
    seconds: float
    summary: Summary | None = None


def open_file(
    proof: Proof, path: Path, scene: Gaussians, size: int, *, browser: Browser | None, bundles: Path
) -> Outcome:
    """Open ``path`` in the viewer of a proof and compare its picture with ours of ``scene``."""
    start, summary = time.perf_counter(), None
    if proof.client == "splat-transform":
        image, summary = render_in_splat_transform(path, proof.view, size)
    elif proof.client == "supersplat":
        assert browser is not None
        image = render_in_supersplat(browser, path, proof.view, size)
    else:
        assert browser is not None
        bundle = bundle_page(proof.client, bundles)
        image = render_in_page(browser, bundle, path, proof.view, size, turned=proof.turned, extended=proof.extended)
    seconds = time.perf_counter() - start
    return Outcome(image=image, scores=compare(image, scene, proof.view), seconds=seconds, summary=summary)


def compare(image: Float[Tensor, "3 size size"], scene: Gaussians, view: View) -> Scores:
    """A viewer's picture against ours."""
    size = image.shape[-1]
    ours = [draw(scene, view, size, antialiased=antialiased) for antialiased in (False, True)]
    similar = max(ssim(image, own) for own in ours)
    return Scores(std=psnr(image, ours[0]), aa=psnr(image, ours[1]), ssim=similar)


def plain_head(generator: TrainedGenerator) -> Gaussians:
    """A head, without a batch axis, as the generator makes it."""
    scenes = generate_scenes(generator, latents_from_seeds([HEAD_SEED], generator.z_dim))
    assert isinstance(scenes, Gaussians)
    return scenes.scene(0)


def baked_head(generator: TrainedGenerator) -> Gaussians:
    """The same as ``cgsgan export --no-fit-colors`` writes it: with the dilation of the training size in its scales."""
    scene = plain_head(generator)
    return replace(scene, scales=torch.hypot(scene.scales, torch.tensor(generator.dilation)))


def fitted_head(generator: TrainedGenerator) -> Gaussians:
    """The same with colours above 1 fitted into what viewers show, as ``cgsgan export`` does it too."""
    scene = fit_colors(plain_head(generator), dilation=generator.dilation).scene
    return replace(scene, scales=torch.hypot(scene.scales, torch.tensor(generator.dilation)))


def write_file(proof: Proof, scene: Gaussians, folder: Path) -> Path:
    """The file of a proof."""
    path = folder / proof.name.replace(": ", "-").replace(", ", "-") / proof.file
    write_splats(path, scene, proof.options)
    return path
