"""``inria=True`` of the reference, convention by convention. That whole images follow them is in test_reference.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rasterizer import rasterize_reference
from rasterizer.autograd import rasterize_cpu
from tests.rasterizer.test_reference import make_axis_camera, make_axis_scene


def make_wide_camera(size: int, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """A camera at the origin; one world unit at depth 1 is 20 pixels, the axis meets the image at its centre."""
    K = torch.tensor([[20.0, 0, size / 2], [0, 20.0, size / 2], [0, 0, 1]], dtype=dtype)
    return {"viewmats": torch.eye(4, dtype=dtype)[None, None], "Ks": K[None, None], "width": size, "height": size}


def to_float32(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value.float() if isinstance(value, Tensor) else value for name, value in arguments.items()}


@pytest.mark.parametrize("function", [rasterize_reference, rasterize_cpu])
@pytest.mark.parametrize("scale", [0.2, 0.3, 0.52, 1.3])
def test_square_of_three_deviations_bounds_a_splat_in_whole_tiles(scale: float, function: Any):
    # Opacity 1 is seen up to sqrt(2 ln 255) = 3.33 deviations. 1.3 units are more rows of tiles than a record holds.
    size, variance = 400, (20 * scale) ** 2 + 0.3
    radius = math.ceil(3 * math.sqrt(variance + math.sqrt(0.1)))
    # Half a pixel of the square reaches into the tile that begins at 272, which by this rule does not count.
    center = np.array([272 + 1 - radius, 200 - 3.4])
    scene = make_axis_scene([1.0], [1.0], [[1.0]], scale=scale)
    scene["scales"][..., 2] = 0  # flat, as depth would add to the variance off the axis
    scene["means"][0, 0, :2] = torch.from_numpy(center - size / 2) / 20
    arguments = {**scene, **make_wide_camera(size)}
    if function is rasterize_cpu:
        arguments = to_float32(arguments)
    alphas = function(**arguments, inria=True)[1][0, 0, :, :, 0].double().numpy()
    positions = np.arange(size)
    squared = ((positions + 0.5 - center[0]) ** 2)[None] + ((positions + 0.5 - center[1]) ** 2)[:, None]
    expected = np.minimum(0.99, np.exp(-squared / (2 * variance)))
    expected[expected < 1 / 255] = 0
    free = expected.copy()
    for axis in range(2):
        first = (center[axis] - 0.5 - radius) // 16 * 16
        past = (center[axis] - 0.5 + radius + 15) // 16 * 16
        outside = (positions < first) | (positions >= past)
        expected[(slice(None), outside) if axis == 0 else (outside, slice(None))] = 0
    assert (expected == 0).sum() > (free == 0).sum(), "the square should cut something"
    np.testing.assert_allclose(alphas, expected, rtol=0, atol=1e-12 if function is rasterize_reference else 2e-6)


def test_transmittance_equal_to_the_stop_goes_on():
    # Opacities of which the third brings T to exactly the bound, and to the next number below it, in float64.
    second = np.linspace(0.981, 0.989, 100_000)
    before = 0.5 * (1 - second)
    third = 1 - 1e-4 / before
    after = before * (1 - third)
    for bound, drawn in ((1e-4, True), (np.nextafter(1e-4, 0), False)):
        (hits,) = np.nonzero(after == bound)
        scene = make_axis_scene([1.0, 1.1, 1.2], [0.5, float(second[hits[0]]), float(third[hits[0]])])
        colors, _, _, _ = rasterize_reference(**scene, **make_axis_camera(), inria=True)
        assert bool(colors[0, 0, 8, 8, 2] > 0) is drawn


def test_core_goes_on_at_the_stop_of_float32():
    """float32(1e-4) itself goes on, the next number below does not; without ``inria`` neither does."""
    stop, one = np.float32(1e-4), np.float32(1)
    second = np.linspace(0.981, 0.989, 200_000).astype(np.float32)
    before = np.float32(0.5) * (one - second)
    third = one - stop / before
    after = before * (one - third)
    camera = to_float32(make_axis_camera())
    for bound, drawn in ((stop, True), (np.nextafter(stop, np.float32(0)), False)):
        (hits,) = np.nonzero(after == bound)
        opacities = [0.5, float(second[hits[0]]), float(third[hits[0]])]
        scene = to_float32(make_axis_scene([1.0, 1.1, 1.2], opacities))
        for inria in (False, True):
            colors, *_ = rasterize_cpu(**scene, **camera, inria=inria)
            assert bool(colors[0, 0, 8, 8, 2] > 0) is (drawn and inria)


@pytest.mark.parametrize("function", [rasterize_reference, rasterize_cpu])
def test_gradient_passes_the_clamp(function: Any):
    arguments = {**make_axis_scene([1.0, 1.2], [1.0, 0.5], [[1.0], [0.25]]), **make_axis_camera()}
    if function is rasterize_cpu:
        arguments = to_float32(arguments)
    arguments["opacities"].requires_grad_()
    colors = function(**arguments, inria=True)[0]
    gradient = torch.autograd.grad(colors[0, 0, 8, 8].sum(), arguments["opacities"])[0][0]
    # The first is clamped to 0.99: d/do of 0.99 * 1 + 0.01 * 0.5 * 0.25 as if alpha = o.
    expected = torch.tensor([1.0 - 0.5 * 0.25, 0.01 * 0.25], dtype=gradient.dtype)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=0)  # worst seen: 2.5e-5, 1 - 0.99 in float32


@pytest.mark.parametrize("function", [rasterize_reference, rasterize_cpu])
def test_quaternions_are_used_raw(function: Any):
    # (0, 0, 0, s) gives diag(1 - 2 s^2, 1 - 2 s^2, 1): a splat of another size, which a normalised one would not be.
    arguments = {**make_axis_scene([1.0], [0.9], [[1.0]], scale=0.1), **make_axis_camera()}
    arguments["quats"] = torch.tensor([[[0.0, 0.0, 0.0, 1.2]]], dtype=torch.float64)
    if function is rasterize_cpu:
        arguments = to_float32(arguments)
    alphas = function(**arguments, inria=True)[1][0, 0, 8, :, 0]
    variance = (20 * 0.1 * (1 - 2 * 1.2**2)) ** 2 + 0.3
    expected = 0.9 * torch.exp(-((torch.arange(17) - 8.0) ** 2) / (2 * variance))
    torch.testing.assert_close(alphas, expected.to(alphas.dtype), rtol=0, atol=2e-6)


def test_faint_splats_are_not_culled():
    for opacity in (0.0, 0.9 / 255):
        _, alphas, _, info = rasterize_reference(**make_axis_scene([1.0], [opacity]), **make_axis_camera(), inria=True)
        assert info["culled"] == 0
        assert not alphas.any()
