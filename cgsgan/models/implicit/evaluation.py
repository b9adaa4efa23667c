"""Sine layers on many points, in pieces that stay in a CPU's cache.

A layer as it stands is bound by memory: products, sines and what autograd keeps of them are written out and read back
for every point. Here a piece of points goes through all layers at once and nothing of it is kept; the backward pass
makes it again, which costs less than the memory would. Measured on one core (4 + 1 layers of 48, 295,000 points,
forward and backward, processor time, in turns): 0.75 s, against 1.45 s for the layers one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

POINTS_AT_ONCE = 2048
"""Of one scene: ten layers of 64 units are 5 MB then."""


@dataclass(frozen=True, kw_only=True)
class SineStack:
    """Everything between points and the two heads, modulated: one affine map per layer and scene.

    Attributes:
        weights: of the layers behind each other, the first takes points.
        biases: likewise.
        seen_weight: what the colour layer, the last one, adds of the direction.
        heads: weight of the density (first column, from the layer before the last), then of the three colours (from
            the last).
    """

    weights: tuple[Float[Tensor, "batch _ width"], ...]
    biases: tuple[Float[Tensor, "batch 1 width"], ...]
    seen_weight: Float[Tensor, "batch 3 width"]
    heads: Float[Tensor, "width 4"]


def follow_plainly(
    stack: SineStack, points: Float[Tensor, "batch point 3"], directions: Float[Tensor, "batch point 3"]
) -> tuple[Float[Tensor, "batch point 1"], Float[Tensor, "batch point 3"]]:
    """What the heads say, without their biases; differentiable by autograd."""
    x = points
    for weight, bias in zip(stack.weights[:-1], stack.biases[:-1]):
        x = torch.baddbmm(bias, x, weight).sin()
    densities = x @ stack.heads[:, :1]
    # Two products instead of one of joined inputs: points have many numbers, directions three.
    seen = torch.baddbmm(stack.biases[-1], directions, stack.seen_weight)
    return densities, torch.baddbmm(seen, x, stack.weights[-1]).sin() @ stack.heads[:, 1:]


def follow_in_pieces(
    stack: SineStack, points: Float[Tensor, "batch point 3"], directions: Float[Tensor, "batch point 3"]
) -> tuple[Float[Tensor, "batch point 1"], Float[Tensor, "batch point 3"]]:
    """:func:`follow_plainly`, in the memory of one piece; differentiable once."""
    densities, colors = _Pieces.apply(points, directions, stack.seen_weight, stack.heads, *stack.weights, *stack.biases)
    return densities, colors


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, directions, seen_weight, heads, *maps):
        ctx.save_for_backward(points, directions, seen_weight, heads, *maps)
        densities, colors = points.new_empty(*points.shape[:2], 1), points.new_empty(points.shape)
        for scene, rows in _pieces(points):
            kept = _layers(points[scene, rows], directions[scene, rows], seen_weight[scene], _of(maps, scene))
            before, last = kept[-2][0], kept[-1][0]
            torch.mm(before, heads[:, :1], out=densities[scene, rows])
            torch.mm(last, heads[:, 1:], out=colors[scene, rows])
        return densities, colors

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):  # pyright: ignore[reportIncompatibleMethodOverride]
        v_densities, v_colors = gradients
        points, directions, seen_weight, heads, *maps = ctx.saved_tensors
        inputs = (points, directions, seen_weight, heads, *maps)
        v_points, v_directions, v_seen, v_heads, *v_maps = (
            torch.zeros_like(tensor) if needed else None
            for tensor, needed in zip(inputs, ctx.needs_input_grad, strict=True)
        )
        layers = len(maps) // 2
        for scene, rows in _pieces(points):
            own = _of(maps, scene)
            kept = _layers(points[scene, rows], directions[scene, rows], seen_weight[scene], own, keep_slopes=True)
            v_density, v_color = v_densities[scene, rows], v_colors[scene, rows]
            if v_heads is not None:
                v_heads[:, :1].addmm_(kept[-2][0].mT, v_density)
                v_heads[:, 1:].addmm_(kept[-1][0].mT, v_color)
            v_x = v_color @ heads[:, 1:].mT
            for index in reversed(range(layers)):
                v_x.mul_(kept[index][1])
                below = kept[index - 1][0] if index else points[scene, rows]
                v_weight, v_bias = v_maps[index], v_maps[layers + index]
                if v_weight is not None:
                    v_weight[scene].addmm_(below.mT, v_x)
                if v_bias is not None:
                    v_bias[scene] += v_x.sum(dim=0)
                if index == layers - 1:
                    if v_seen is not None:
                        v_seen[scene].addmm_(directions[scene, rows].mT, v_x)
                    if v_directions is not None:
                        v_directions[scene, rows] = v_x @ seen_weight[scene].mT
                    v_x = torch.addmm(v_density @ heads[:, :1].mT, v_x, own[index].mT)
                elif index:
                    v_x = v_x @ own[index].mT
                elif v_points is not None:
                    v_points[scene, rows] = v_x @ own[0].mT
        return v_points, v_directions, v_seen, v_heads, *v_maps


def _pieces(points: Tensor):
    for scene in range(points.shape[0]):
        for start in range(0, points.shape[1], POINTS_AT_ONCE):
            yield scene, slice(start, start + POINTS_AT_ONCE)


def _of(maps: tuple[Tensor, ...] | list[Tensor], scene: int) -> list[Tensor]:
    return [tensor[scene] for tensor in maps]


def _layers(
    x: Tensor, directions: Tensor, seen_weight: Tensor, own: list[Tensor], *, keep_slopes: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Of every layer what it gives and, if asked for, its slope (the cosine)."""
    layers, kept = len(own) // 2, []
    for index in range(layers):
        angles = torch.addmm(own[layers + index], x, own[index])
        if index == layers - 1:
            angles.addmm_(directions, seen_weight)
        slopes = angles.cos() if keep_slopes else angles
        x = angles.sin_()
        kept.append((x, slopes))
    return kept
