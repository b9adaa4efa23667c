"""Calls of the CUDA core with emulated kernels, and what they return, by name."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.rasterizer.emulated import emulated_rasterize
from tests.rasterizer.scenes import Inputs, make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT, BATCH, VIEWS = 53, 37, 3, 4
SIZE: dict[str, Any] = {"width": WIDTH, "height": HEIGHT}


class Result(NamedTuple):
    images: dict[str, Tensor]
    gradients: dict[str, Tensor]
    info: dict[str, Any]


def make_leaves(
    *, count: int = 60, batch: int = BATCH, views: int = VIEWS, channels: int = 3, sh_degree: int | None = None
) -> Inputs:
    tensors = {
        **make_scene("normal", batch=batch, count=count, channels=channels, sh_degree=sh_degree),
        **make_cameras(batch=batch, views=views, width=WIDTH, height=HEIGHT),
        "backgrounds": make_backgrounds(batch=batch, views=views, channels=channels),
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def weigh(colors: Tensor, alphas: Tensor, depths: Tensor) -> Tensor:
    """A loss in which every element of the images has a weight of its own."""
    ramp = torch.linspace(-1, 1, colors.numel(), dtype=colors.dtype).reshape(colors.shape)
    return (colors * ramp).sum() + (alphas * ramp[..., :1]).sum() + (depths * alphas.detach()).mean()


def compute(leaves: Inputs, **options: Any) -> Result:
    """Images and the gradients of every input."""
    colors, alphas, depths, info = emulated_rasterize(**leaves, **SIZE, depth=True, **options)
    assert depths is not None
    gradients = torch.autograd.grad(weigh(colors, alphas, depths), list(leaves.values()))
    images = {"colors": colors.detach(), "alphas": alphas.detach(), "depths": depths.detach()}
    return Result(images, dict(zip(leaves, gradients)), info)


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
