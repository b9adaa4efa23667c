"""Where an inversion starts: what many heads of the generator say about the photo, seen from the best of many sides."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cgsgan.cameras import Cameras, orbit
from cgsgan.latents.camera_fit import PITCH_SPREAD
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.style_space import StyleSpace
from cgsgan.latents.targets import Target

YAWS = tuple(math.radians(angle) for angle in range(-60, 61, 10))
PITCHES = tuple(math.radians(angle) for angle in (-15, 0, 15))
COMPARED_SIZE = 32
"""Candidates are compared at this size, pixels."""
FINER = tuple((math.radians(yaw), math.radians(pitch)) for yaw in (-5, 0, 5) for pitch in (-8, -4, 0, 4, 8))
"""Steps from the grid's best camera that are tried next."""
SCENES_AT_ONCE = 16
RIDGE = 0.03
"""Mean square of the part of a small picture that no head of the generator explains, full scale 1."""
ANGLE_RIDGE = 0.1
"""Likewise, where few candidates stand for all heads."""
PITCH_HANDICAP = 0.01
"""A camera one standard deviation high or low has to explain this share more to be chosen: faces that look up or down
explain much of it as well. 0.02 took the mean error of level views of 16 persons from 2.5 to 1.5 degrees and raised
that of views from 18 degrees above from 2.5 to 3.2.
"""


@torch.no_grad()
def guess_style(
    source: SceneSource,
    space: StyleSpace,
    styles: Float[Tensor, "candidate w_dim"],
    target: Target,
    cameras: Cameras,
) -> Float[Tensor, " w_dim"]:
    """Whitened coordinates of a head that looks much like the target.

    The nearest candidate shares hardly more than its hair colour with a new person. Ridge regression from the
    candidates' pictures to their coordinates combines what each of them has in common with the photo: the posterior
    mean, were the generator linear. Whichever of the two makes the better picture is taken.

    Args:
        source: styles to pictures.
        space: of the styles.
        styles: candidates.
        target: views of one person.
        cameras: ``[1, view]``.
    """
    wanted = _small_target(target).flatten()
    pictures = _small_pictures(source, styles, target, cameras).flatten(1)
    nearest = styles[(pictures - wanted).abs().mean(dim=1).argmin()]
    guess = space.to_styles(_regress(pictures, space.to_coordinates(styles), wanted))
    both = torch.stack([nearest, guess])
    errors = (_small_pictures(source, both, target, cameras).flatten(1) - wanted).abs().mean(dim=1)
    return space.to_coordinates(both[errors.argmin()])


def _regress(
    pictures: Float[Tensor, "candidate value"],
    answers: Float[Tensor, "candidate number"],
    asked: Float[Tensor, " value"],
) -> Float[Tensor, " number"]:
    """Ridge regression, solved among candidates because they are fewer than values."""
    center, mean = pictures.mean(dim=0), answers.mean(dim=0)
    known = (pictures - center).double()
    penalty = RIDGE * pictures.shape[1] * torch.eye(len(known), dtype=known.dtype, device=known.device)
    weights = torch.linalg.solve(known @ known.mT + penalty, known @ (asked - center).double())
    return mean + weights.to(answers.dtype) @ (answers - mean)


@torch.no_grad()
def best_angles(
    source: SceneSource, styles: Float[Tensor, "candidate w_dim"], target: Target
) -> tuple[Float[Tensor, " view"], Float[Tensor, " view"]]:
    """Yaw and pitch of every view, radians: a grid of cameras, then a finer one around its best.

    A camera is judged by what mixtures of all candidates' pictures from there explain of the view. The single candidate
    that is nearest decides by its hair and its clothes, and put cameras 15 degrees too high.

    Args:
        source: styles to pictures.
        styles: candidates.
        target: views of one person.
    """
    wanted = _small_target(target)
    grid = torch.cartesian_prod(torch.tensor(YAWS), torch.tensor(PITCHES)).to(source.device)
    coarse = _unexplained(source, styles, target, grid, wanted)
    chosen = []
    for view in range(target.views):
        center = grid[coarse[:, view].argmin()]
        near = center + torch.tensor(FINER, device=grid.device)
        fine = _unexplained(source, styles, target, near, wanted[view : view + 1])
        chosen.append(near[fine[:, 0].argmin()])
    yaw, pitch = torch.stack(chosen).unbind(dim=-1)
    return yaw, pitch


def _unexplained(
    source: SceneSource, styles: Tensor, target: Target, angles: Float[Tensor, "angle 2"], wanted: Tensor
) -> Float[Tensor, "angle view"]:
    """Of each view, what the candidates' pictures from each camera leave: (y - m)' (X'X + penalty)^-1 (y - m) without
    its factor, by Woodbury's identity among candidates; a high or low camera has to leave less.
    """
    cameras = orbit(angles[:, 0], angles[:, 1]).map(lambda t: t[None])
    seen = _small_pictures(source, styles, target, cameras).flatten(2).transpose(0, 1).double()
    center = seen.mean(dim=1, keepdim=True)
    known = seen - center  # [angle, candidate, value]
    rest = wanted.flatten(1).double()[None] - center  # [angle, view, value]
    penalty = ANGLE_RIDGE * len(styles) * torch.eye(len(styles), dtype=known.dtype, device=known.device)
    seen_in = known @ rest.mT
    explained = (seen_in * torch.linalg.solve(known @ known.mT + penalty, seen_in)).sum(dim=1)
    left = rest.square().sum(dim=-1) - explained
    handicap = 1 + PITCH_HANDICAP * (angles[:, 1:] / PITCH_SPREAD).square()
    return (left * handicap).to(styles.dtype)


def _backgrounds(target: Target, views: int) -> Float[Tensor, "view 3"]:
    """Grey when the coverage is known, else the photos' own."""
    return target.colors.new_tensor(target.background if target.alphas is None else (0.5,) * 3).expand(views, 3)


def _small_target(target: Target) -> Float[Tensor, "view 3 small small"]:
    return functional.interpolate(target.on(_backgrounds(target, target.views)), size=(COMPARED_SIZE,) * 2, mode="area")


def _small_pictures(
    source: SceneSource, styles: Float[Tensor, "candidate w_dim"], target: Target, cameras: Cameras
) -> Float[Tensor, "candidate view 3 small small"]:
    rows = int(source.network.num_ws)  # type: ignore[arg-type]
    backgrounds = _backgrounds(target, cameras.viewmats.shape[1])
    return torch.cat(
        [
            source.render(part[:, None].expand(-1, rows, -1), cameras, backgrounds, size=COMPARED_SIZE)
            for part in styles.split(SCENES_AT_ONCE)
        ]
    )
