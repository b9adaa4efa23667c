"""Directions of styles that mean something: along which heads vary most, or along which a figure rises."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.latents.style_space import StyleSpace


def principal_direction(space: StyleSpace, index: int) -> Float[Tensor, " w_dim"]:
    """Direction ``index``, 0 the widest, as long as one standard deviation of the generator's own heads along it
    (Harkonen et al. 2020, GANSpace).

    Raises:
        ValueError: when there is none of that number.
    """
    if not 0 <= index < len(space.axes):
        raise ValueError(f"directions: expected 0 to {len(space.axes) - 1}, got {index}")
    return space.axes[index] * space.spreads[index]


def attribute_direction(
    space: StyleSpace, styles: Float[Tensor, "head w_dim"], values: Float[Tensor, " head"], *, ridge: float = 1.0
) -> Float[Tensor, " w_dim"]:
    """The direction along which a figure of heads (a smile, a hair's darkness) rises fastest for its length among
    likely heads, scaled to raise it by one standard deviation.

    Ridge regression in whitened coordinates, so that hardly used directions of the style space do not take part.

    Args:
        space: of the generator.
        styles: of heads.
        values: the figure of each.
        ridge: penalty on the coefficients, in units of one head's evidence.

    Raises:
        ValueError: when all values are equal, or none follows from the styles.
    """
    x = space.to_coordinates(styles).double()
    y = values.double()
    spread = y.std()
    if not bool(spread > 0):
        raise ValueError("directions: all heads have the same value; nothing to learn a direction from")
    x, y = x - x.mean(dim=0), (y - y.mean()) / spread
    normal = x.mT @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    slope = torch.linalg.solve(normal, x.mT @ y)
    steepness = slope.square().sum()
    if not bool(steepness > 1e-12):
        raise ValueError("directions: the values do not follow from the styles")
    step = slope / steepness  # the shortest one that raises the figure by one
    return (step * space.spreads.double() @ space.axes.double()).to(styles.dtype)
