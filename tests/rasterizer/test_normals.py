"""Normals against the reference's weights, put together pixel by pixel in another way; and their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from rasterizer import rasterize
from rasterizer.normals import render_normals
from rasterizer.reference import rasterize_reference
from tests.rasterizer.emulated import emulated_rasterize
from tests.rasterizer.scenes import Inputs, make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 31, 24
SIZE: dict[str, Any] = {"width": WIDTH, "height": HEIGHT}


def make_arguments(batch: int = 2, views: int = 3, dtype: torch.dtype = torch.float64, **scene: Any) -> Inputs:
    return {
        **make_scene("normal", batch=batch, count=20, dtype=dtype, **scene),
        **make_cameras(batch=batch, views=views, width=WIDTH, height=HEIGHT, dtype=dtype),
    }


def find_normals(arguments: Inputs, scene: int, view: int) -> Tensor:
    """Normals [n, 3] of the Gaussians of a scene as a camera sees them, by scipy."""
    quats, scales = arguments["quats"][scene].numpy(), arguments["scales"][scene].numpy()
    rotations = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix()
    normals = np.stack([rotations[i][:, scales[i].argmin()] for i in range(len(quats))])
    viewmat = arguments["viewmats"][scene, view].numpy()
    center = np.linalg.inv(viewmat)[:3, 3]
    signs = np.sign(((center - arguments["means"][scene].numpy()) * normals).sum(-1, keepdims=True))
    return torch.from_numpy(signs * normals)


def test_normals_are_shortest_axes_weighted_by_what_is_seen():
    arguments = make_arguments()
    render = rasterize(**arguments, **SIZE, normals=True, backend="reference")
    assert render.normals is not None
    # With one channel per Gaussian, colours are the weights themselves.
    count = arguments["means"].shape[1]
    weights, alphas, *_ = rasterize_reference(
        **{**arguments, "colors": torch.eye(count).expand(2, -1, -1).double()}, **SIZE
    )
    for scene in range(2):
        for view in range(3):
            sums = weights[scene, view] @ find_normals(arguments, scene, view)
            alpha = alphas[scene, view]
            expected = torch.where(alpha > 0, sums / alpha.clamp(min=1e-30), 0.0)
            assert (expected - render.normals[scene, view]).abs().max() < 2e-15  # observed worst 4.4e-16
    assert (render.normals.norm(dim=-1) > 0.9).any()
    assert (render.alphas == 0).any()


@pytest.mark.parametrize("sh_degree", [None, 1])
@pytest.mark.parametrize("lead", [(), (2,), (1, 2)])
def test_normals_leave_the_rest_as_it_is(lead: tuple[int, ...], sh_degree: int | None):
    flat = 2 if lead else 1
    arguments = make_arguments(flat, dtype=torch.float32, sh_degree=sh_degree)
    arguments["backgrounds"] = make_backgrounds(batch=flat, views=3)
    arguments = {name: tensor.reshape(*lead, *tensor.shape[1:]) for name, tensor in arguments.items()}
    plain = rasterize(**arguments, **SIZE, sh_degree=sh_degree, depth=True)
    render = rasterize(**arguments, **SIZE, sh_degree=sh_degree, depth=True, normals=True)
    assert plain.normals is None
    assert torch.equal(plain.colors, render.colors)
    assert plain.depths is not None
    assert render.depths is not None
    assert torch.equal(plain.depths, render.depths)
    assert render.normals is not None
    assert render.normals.shape == (*lead, 3, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("function", [None, emulated_rasterize])
def test_backends_agree(function: Any):
    single = make_arguments(dtype=torch.float32)
    double = {name: tensor.double() for name, tensor in single.items()}
    truth = rasterize(**double, **SIZE, normals=True, backend="reference").normals
    assert truth is not None
    if function is None:
        found = rasterize(**single, **SIZE, normals=True, backend="cpu").normals
    else:
        found = render_normals(function, {**single, **SIZE, "sh_degree": None})
    assert found is not None
    assert (found - truth).abs().max() < 4e-5  # observed worst 6.7e-6


def test_gradients_flow_to_what_is_seen():
    arguments = make_arguments(batch=1, views=2)
    inputs = ("means", "quats", "scales", "opacities", "viewmats")
    leaves = [arguments[name].requires_grad_() for name in inputs]
    # At the rim of what is covered the ratio steps from 0 to a unit normal.
    inner = rasterize_reference(**arguments, **SIZE)[1].detach() > 0.1
    weights = inner * torch.randn(1, 2, HEIGHT, WIDTH, 3, dtype=torch.float64)

    def compute(*tensors: Tensor) -> Tensor:
        # A smooth threshold, since finite differences meet the step at alpha = 1/255.
        def function(**keywords: Any) -> Any:
            return rasterize_reference(**keywords, smooth_threshold=0.9)

        own = {**arguments, **dict(zip(inputs, tensors)), **SIZE, "sh_degree": None}
        return (render_normals(function, own) * weights).sum()

    assert torch.autograd.gradcheck(compute, leaves, eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)
    gradients = torch.autograd.grad(compute(*leaves), leaves)
    assert all((gradient != 0).any() for gradient in gradients)


def test_bad_gaussians_are_missing_and_get_no_gradient():
    clean = make_arguments(dtype=torch.float32)
    bad = {name: tensor[:, :9] for name, tensor in make_scene("degenerate", batch=2, count=20).items()}
    mixed = {**clean, **{name: torch.cat([tensor, clean[name]], 1) for name, tensor in bad.items()}}
    mixed = {name: tensor.requires_grad_() for name, tensor in mixed.items()}
    expected = rasterize(**clean, **SIZE, normals=True).normals
    found = rasterize(**mixed, **SIZE, normals=True).normals
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)
    found.square().sum().backward()
    for name in bad:
        gradient = mixed[name].grad
        if name != "colors":
            assert gradient.isfinite().all(), name
            assert (gradient[:, :9] == 0).all(), name
