"""A rasterizer in float32 against the float64 reference: images and every gradient, by name.

The image is not continuous: a contribution appears at alpha = 1/255, and a pixel ends at T = 1e-4. Where float32 falls
on the other side of such a step than float64 a pixel differs by up to 1/255 of a color; those are counted, and left
out of the loss, so that everything else can be compared tightly. Errors in the comments are the worst over all cases;
CPU: over all instruction sets, CUDA: emulated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rasterizer.reference import rasterize_reference
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

FLIP = 1e-4  # an image difference above is a step taken on the other side
MAX_FLIPPED = 0.002  # of all pixels; observed 2.6e-4 (CPU, 1 of 3922), none (CUDA)
IMAGE_TOLERANCE = 2e-5  # observed 2.0e-6 (colors), 6.3e-6 (alphas) on the CPU, 3.2e-6, 9.9e-6 with CUDA
# Relative L2 error of a gradient.
TOLERANCE = 4e-5  # observed 1.1e-5 (CPU: huge, Ks), 1.9e-5 (CUDA: opaque, backgrounds)
DEPTH_GRADIENT_TOLERANCE = 1e-3  # observed 3.1e-4 (transparent, quats; tiny, means): depth divides by alphas of 1/255
SMALL = 1e-2  # a gradient with a smaller norm is compared absolutely
DEPTH_TOLERANCE = 2e-4  # observed 5.1e-5, where alpha is 1/255 and 1 - T has lost 8 of its 24 bits


class Result(NamedTuple):
    colors: Tensor
    alphas: Tensor
    depths: Tensor
    info: dict[str, Any]
    leaves: dict[str, Tensor]

    def gradients(self, weights: list[Tensor]) -> dict[str, Tensor]:
        outputs = (self.colors, self.alphas, self.depths)
        loss = sum((out * weight.to(out.dtype)).sum() for out, weight in zip(outputs, weights))
        assert isinstance(loss, Tensor)
        gradients = torch.autograd.grad(loss, list(self.leaves.values()), retain_graph=True, allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(self.leaves.items(), gradients)
        }


def run(function: Any, arguments: dict[str, Tensor], dtype: torch.dtype, **options: Any) -> Result:
    leaves = {name: tensor.to(dtype).clone().requires_grad_() for name, tensor in arguments.items()}
    colors, alphas, depths, info = function(**leaves, depth=True, **options)
    return Result(colors, alphas, depths, info, leaves)


def make_arguments(
    kind: str, count: int, channels: int, sh_degree: int | None, width: int, height: int
) -> dict[str, Tensor]:
    batch, views = 2, 2
    return {
        **make_scene(kind, batch=batch, count=count, channels=channels, sh_degree=sh_degree, seed=1),
        **make_cameras(batch=batch, views=views, width=width, height=height),
        "backgrounds": make_backgrounds(batch=batch, views=views, channels=channels),
    }


def compare(
    function: Any,
    arguments: dict[str, Tensor],
    *,
    tolerance: float = TOLERANCE,
    depth_tolerance: float = DEPTH_GRADIENT_TOLERANCE,
    **options: Any,
) -> None:
    ours = run(function, arguments, torch.float32, **options)
    truth = run(rasterize_reference, arguments, torch.float64, **options)

    flipped = ((ours.colors - truth.colors).abs().amax(-1, keepdim=True) > FLIP) | (
        (ours.alphas - truth.alphas).abs() > FLIP
    )
    assert flipped.double().mean() <= MAX_FLIPPED
    same = ~flipped
    assert ((ours.colors - truth.colors) * same).abs().max() < IMAGE_TOLERANCE
    assert ((ours.alphas - truth.alphas) * same).abs().max() < IMAGE_TOLERANCE
    assert ((ours.depths - truth.depths) * same).abs().max() < DEPTH_TOLERANCE
    assert ours.info["nonfinite"] == truth.info["nonfinite"]

    random = torch.Generator().manual_seed(2)
    weights = [
        same * torch.randn(out.shape, generator=random, dtype=torch.float64)
        for out in (truth.colors, truth.alphas, truth.depths)
    ]
    none = [torch.zeros_like(weight) for weight in weights]
    for label, chosen, limit in (
        ("image", [*weights[:2], none[2]], tolerance),
        ("depth", [*none[:2], weights[2] * truth.alphas.detach()], depth_tolerance),
    ):
        found, expected = ours.gradients(chosen), truth.gradients(chosen)
        for name, gradient in found.items():
            assert gradient.isfinite().all(), (label, name)
            error = (gradient - expected[name]).norm() / expected[name].norm().clamp(min=SMALL)
            assert error < limit, (label, name, float(error))
