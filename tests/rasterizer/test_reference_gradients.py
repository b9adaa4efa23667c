"""Finite differences of every differentiable input, in float64, the step at alpha = 1/255 made smooth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rasterizer import rasterize_reference
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 21, 13
CASES = {
    "plain": ("normal", {}),
    "antialiased": ("normal", {"antialiased": True}),
    "harmonics": ("normal", {"sh_degree": 3}),
    "limited jacobians": ("border", {}),
    "inria": ("normal", {"inria": True}),
}


def check_gradients(kind: str, options: dict[str, Any], wanted: str, seed: int) -> None:
    sh_degree = options.get("sh_degree")
    scene = make_scene(kind, count=7, seed=seed, dtype=torch.float64, sh_degree=3 if sh_degree else None)
    scene["opacities"] = scene["opacities"] * 0.8  # stays below the clamp, which has a kink
    inputs = {
        **scene,
        **make_cameras(width=WIDTH, height=HEIGHT, seed=seed, dtype=torch.float64),
        "backgrounds": make_backgrounds(seed=seed, dtype=torch.float64),
    }
    weights = torch.randn(3, 1, 2, HEIGHT, WIDTH, 3, dtype=torch.float64)

    def loss(value: Tensor) -> Tensor:
        colors, alphas, depths, _ = rasterize_reference(
            **{**inputs, wanted: value},
            width=WIDTH,
            height=HEIGHT,
            depth=True,
            smooth_threshold=0.5,
            **options,
        )
        assert depths is not None
        # Expected depth jumps where coverage begins, its product with alpha does not.
        parts = (colors, alphas, depths * alphas)
        return torch.stack([(w[..., : part.shape[-1]] * part).sum() for w, part in zip(weights, parts)]).sum()

    value = inputs[wanted].requires_grad_()
    assert torch.autograd.grad(loss(value), value)[0].abs().max() > 1e-3
    # Hundreds of coefficients are checked along a random direction, smaller inputs number by number.
    fast = value.numel() > 60
    assert torch.autograd.gradcheck(loss, (value,), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=fast)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wanted", ["means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds"])
def test_gradients_equal_finite_differences(case: str, wanted: str):
    kind, options = CASES[case]
    check_gradients(kind, options, wanted, seed=3)


def test_limited_jacobian_is_reached():
    """The case above would show nothing if no visible splat lay beyond the limit."""
    scene = make_scene("border", count=7, seed=3, dtype=torch.float64)
    cameras = make_cameras(width=WIDTH, height=HEIGHT, seed=3, dtype=torch.float64)
    points = torch.einsum("vij,nj->vni", cameras["viewmats"][0, :, :3, :3], scene["means"][0])
    points = points + cameras["viewmats"][0, :, None, :3, 3]
    slopes = points[..., :2] / points[..., 2:]
    size = torch.tensor([WIDTH, HEIGHT], dtype=torch.float64)
    K = cameras["Ks"][0]
    focal, center = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1), K[:, :2, 2]
    margin = 0.15 * size / focal
    outside = (slopes < (-center / focal - margin)[:, None]) | (slopes > ((size - center) / focal + margin)[:, None])
    beyond = (outside.any(-1) & (points[..., 2] > 0.01)).any(0).nonzero().squeeze(-1)
    assert len(beyond) > 0
    alone = {name: tensor[:, beyond] for name, tensor in scene.items()}
    assert rasterize_reference(**alone, **cameras, width=WIDTH, height=HEIGHT)[1].sum() > 0.1


def test_gradient_of_depth_where_covered():
    """Expected depth itself: with one splat it is the depth of that splat wherever it is seen."""
    scene = make_scene("normal", count=1, seed=1, dtype=torch.float64)
    scene["means"].zero_().requires_grad_()
    cameras = make_cameras(views=1, width=WIDTH, height=HEIGHT, dtype=torch.float64)
    _, alphas, depths, _ = rasterize_reference(**scene, **cameras, width=WIDTH, height=HEIGHT, depth=True)
    assert depths is not None
    covered = (alphas > 0).sum().item()
    assert covered > 3
    gradient = torch.autograd.grad(depths.sum(), scene["means"])[0][0, 0]
    torch.testing.assert_close(gradient, covered * cameras["viewmats"][0, 0, 2, :3])


def test_extra_coefficients_are_ignored_with_zero_gradient():
    scene = make_scene("normal", count=9, sh_degree=3, dtype=torch.float64)
    scene["colors"][:, :, 9:] = float("nan")
    scene["colors"].requires_grad_()
    cameras = make_cameras(width=WIDTH, height=HEIGHT, dtype=torch.float64)
    colors, _, _, info = rasterize_reference(**scene, **cameras, width=WIDTH, height=HEIGHT, sh_degree=2)
    assert info["nonfinite"] == 0
    gradient = torch.autograd.grad(colors.sum(), scene["colors"])[0]
    assert (gradient[:, :, 9:] == 0).all()
    assert (gradient[:, :, :9] != 0).any()


def test_gradients_through_groups_of_tiles_equal_those_of_one_group(monkeypatch: pytest.MonkeyPatch):
    def gradients() -> tuple[Tensor, ...]:
        scene = {name: tensor.requires_grad_() for name, tensor in make_scene("normal", dtype=torch.float64).items()}
        cameras = make_cameras(width=70, height=50, dtype=torch.float64)
        colors = rasterize_reference(**scene, **cameras, width=70, height=50)[0]
        return torch.autograd.grad(colors.square().sum(), list(scene.values()))

    together = gradients()
    monkeypatch.setattr("rasterizer.reference_blending.GROUP_PAIRS", 1)
    for one, other in zip(together, gradients()):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
