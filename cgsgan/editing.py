"""Heads changed: towards another head, with another head's styles, along a direction; and written like found ones."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import orbit
from cgsgan.config import config_to_dict
from cgsgan.export.atomic import atomic_path
from cgsgan.export.images import make_grid, save_image, to_uint8
from cgsgan.export.video import save_video
from cgsgan.gallery import latents_from_seeds
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.latents.attributes import FIGURES, measure_heads
from cgsgan.latents.directions import attribute_direction, principal_direction
from cgsgan.latents.paths import lerp_weights, mix_styles
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.style_space import StyleSpace
from cgsgan.training.generator_file import GENERATOR_FILE, GeneratorFile, write_generator

VIEWS = ((0.0, 0.0), (-35.0, 0.0), (35.0, 0.0))
"""Yaw and pitch in degrees of the rows of a strip."""
FILM_FRAMES = 48
SMALLEST_TILE = 160
MEASURED_HEADS = 1024
"""Random heads that an attribute's direction is learned from."""


class EditError(ValueError):
    """An edit that cannot be made; one line says why and what to do."""


@dataclass(frozen=True)
class Head:
    """One head.

    Attributes:
        ws: its styles.
        network: the generator that makes it, which may be tuned to it.
    """

    ws: Float[Tensor, "1 num_ws w_dim"]
    network: nn.Module

    def moved(self, step: Float[Tensor, " w_dim"], amount: float) -> Head:
        """Along a direction, all rows alike."""
        return Head(self.ws + amount * step, self.network)

    def between(self, other: Head, share: float) -> Head:
        """On the way to another one: styles and weights, straight."""
        return Head(self.ws.lerp(other.ws, share), lerp_weights(self.network, other.network, share))

    def mixed(self, other: Head, rows: slice) -> Head:
        """With these style rows of another one, made by this one's network."""
        return Head(mix_styles(self.ws, other.ws, rows), self.network)


def head_of(generator: TrainedGenerator, seed: int | None = None) -> Head:
    """The head that was found in a photograph or made by an edit, or that of a seed.

    Raises:
        EditError: when it comes with none and no seed is given.
    """
    if seed is not None:
        with torch.no_grad():
            z = latents_from_seeds([seed], generator.z_dim).to(generator.device)
            return Head(generator.map_latents(z), generator.network)
    if generator.found is None:
        raise EditError("this generator comes with no head that was found; name a folder that invert wrote, or a seed")
    return Head(generator.found[:1], generator.network)


def other_head(generator: TrainedGenerator, name: str) -> Head:
    """A second head for the same generator.

    Args:
        generator: of the first one.
        name: a folder that invert or edit wrote, or ``seed:3``.

    Raises:
        EditError: when it is neither, or was found with another generator.
    """
    kind, _, number = name.partition(":")
    if kind == "seed":
        if not number.isdecimal() or len(number) > 9:
            raise EditError(f"{name}: expected something like seed:3")
        return head_of(generator, int(number))
    other = load_generator(name, device=generator.device)
    if other.found is None:
        raise EditError(f"{name}: comes with no head that was found; name a folder that invert wrote, or seed:3")
    if not _same_origin(generator, other):
        raise EditError(
            f"{name}: was found with another generator; invert both photos with the same checkpoint to join them"
        )
    return head_of(other)


def _same_origin(first: TrainedGenerator, second: TrainedGenerator) -> bool:
    """Whether both are one generator, apart from tuning, which leaves the mapping alone."""
    if config_to_dict(first.config) != config_to_dict(second.config):
        return False
    weights = first.network.mapping.state_dict(), second.network.mapping.state_dict()
    return all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def direction_of(generator: TrainedGenerator, name: str) -> Float[Tensor, " w_dim"]:
    """A direction of styles, one standard deviation long.

    Args:
        generator: whose styles.
        name: ``pc:0`` and on: the directions along which its heads vary most; one of
            :data:`cgsgan.latents.attributes.FIGURES`; or a ``.json`` file of figures that somebody gave to heads by
            their seeds, ``{"0": 1.5, "1": 0, ...}``.

    Raises:
        EditError: for anything else, or labels that nothing can be learned from.
    """
    space = StyleSpace.of(generator.map_latents, generator.z_dim, device=generator.device)
    kind, _, number = name.partition(":")
    if kind == "pc" and number.isdecimal():
        return principal_direction(space, int(number))
    if name.endswith(".json"):
        seeds, values = read_labels(Path(name))
    elif name in FIGURES:
        seeds, values = list(range(MEASURED_HEADS)), None
    else:
        raise EditError(
            f"--direction: expected pc:0, a file of labels.json, or one of {', '.join(FIGURES)}; got {name!r}"
        )
    with torch.no_grad():
        styles = generator.map_latents(latents_from_seeds(seeds, generator.z_dim).to(generator.device))[:, 0]
    if values is None:
        measured = measure_heads(SceneSource(generator.network, generator.renderer), styles, name)
    else:
        measured = styles.new_tensor(values)
    return attribute_direction(space, styles, measured)


def read_labels(path: Path) -> tuple[list[int], list[float]]:
    """Seeds and the figures of their heads.

    Raises:
        EditError: when the file is not of that form, or holds fewer than 8.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        labels = {int(seed): float(value) for seed, value in read.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise EditError(
            f'{path}: expected a JSON file like {{"0": 1.5, "1": 0}}, seeds to figures ({problem})'
        ) from None
    if len(labels) < 8 or not all(math.isfinite(value) for value in labels.values()) or min(labels) < 0:
        raise EditError(f"{path}: expected at least 8 seeds >= 0 with finite figures, got {len(labels)}")
    return list(labels), list(labels.values())


@dataclass(frozen=True)
class Edit:
    """One change of one head.

    Attributes:
        start: the head.
        other: to go towards or to mix in.
        rows: of the styles that are mixed in.
        step: of a direction.
    """

    start: Head
    other: Head | None = None
    rows: slice | None = None
    step: Tensor | None = None

    def at(self, amount: float) -> Head:
        """The head, changed by so much: a share, or standard deviations of a direction."""
        if self.step is not None:
            return self.start.moved(self.step, amount)
        assert self.other is not None
        if self.rows is None:
            return self.start.between(self.other, amount)
        return self.start.between(self.start.mixed(self.other, self.rows), amount)


def edit_strip(
    generator: TrainedGenerator, edit: Edit, amounts: list[float], *, size: int
) -> Float[Tensor, "3 height width"]:
    """Amounts as columns, sides as rows."""
    columns = torch.stack([picture_head(generator, edit.at(amount), size=size) for amount in amounts], dim=1)
    return make_grid(columns.flatten(0, 1), columns=len(amounts))


@torch.no_grad()
def picture_head(
    generator: TrainedGenerator, head: Head, *, size: int, views: tuple[tuple[float, float], ...] = VIEWS
) -> Float[Tensor, "view 3 size size"]:
    """A head from a few sides, yaw and pitch in degrees, on white; on the CPU."""
    angles = torch.tensor(views, device=generator.device).mul(math.pi / 180)
    cameras = orbit(angles[:, 0], angles[:, 1]).map(lambda t: t[None])
    source = SceneSource(head.network, generator.renderer)
    return source.render(head.ws, cameras, angles.new_ones(len(views), 3), size=size)[0].clamp(0, 1).cpu()


def save_edited(
    out: Path, generator: TrainedGenerator, edit: Edit, amount: float, *, amounts: list[float], film: bool = False
) -> dict[Path, str]:
    """Write the changed head like a found one, and pictures of the way.

    Args:
        out: folder; files in it are replaced.
        generator: of the head.
        edit: the change.
        amount: of the head that is written.
        amounts: of the pictures.
        film: also write the way there and back.

    Returns:
        The files, each with what it is.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "film.webp").unlink(missing_ok=True)  # of another change, it would be taken for this one's
    head = edit.at(amount)
    stored = GeneratorFile(
        config=config_to_dict(generator.config),
        images_seen=generator.images_seen,
        weights=head.network.state_dict(),
        provenance=generator.provenance,
        heads={"ws": head.ws},
    )
    with atomic_path(out / GENERATOR_FILE) as path:
        write_generator(path, stored)
    size = max(SMALLEST_TILE, generator.resolution)
    save_image(out / "strip.png", edit_strip(generator, edit, amounts, size=size))
    written = {
        out / GENERATOR_FILE: "the generator and the head; render, export, mesh and edit take this folder",
        out / "strip.png": f"from {amounts[0]:g} to {amounts[-1]:g}, from three sides",
    }
    if film:
        phases = torch.arange(FILM_FRAMES) * (2 * math.pi / FILM_FRAMES)
        ways = [amounts[0] + (amounts[-1] - amounts[0]) * (0.5 - 0.5 * math.cos(float(phase))) for phase in phases]
        frames = (
            to_uint8(make_grid(picture_head(generator, edit.at(way), size=size), columns=len(VIEWS))) for way in ways
        )
        save_video(out / "film.webp", frames, fps=24)
        written[out / "film.webp"] = "the way there and back"
    return written
