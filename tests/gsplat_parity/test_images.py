"""``rasterization()`` against gsplat itself, where a machine without a GPU can run it.

gsplat keeps a plain torch version of its projection and of its spherical harmonics beside its CUDA kernels. Here they
give the splats of a scene in float64; blending them is written down below from gsplat's published rules. The images
and the gradients of our compiled core must be those of that chain.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from rasterizer import rasterization
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

gsplat_torch = pytest.importorskip(
    "gsplat.cuda._torch_impl", reason="gsplat is not installed; pip install -e '.[dev]' brings it"
)

WIDTH, HEIGHT, VIEWS, COUNT = 45, 34, 2, 40
IMAGE_TOLERANCE = 2e-5  # observed worst 3.4e-6, depths 1.0e-5
GRADIENT_TOLERANCE = 5e-5  # relative L2; observed worst 1.1e-5
USED_INTRINSICS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
FLIP = 1e-4  # beyond: a splat whose alpha is within rounding of 1/255
MAX_FLIPPED = 2  # pixels; observed 0


class Blended(NamedTuple):
    colors: Tensor
    alphas: Tensor
    depths: Tensor


def blend(means2d: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor, depths: Tensor) -> Blended:
    """One image, every splat at every pixel: front to back, alpha from 1/255, an end at T <= 1e-4."""
    order = depths.argsort(stable=True)
    means2d, conics, opacities, colors, depths = (t[order] for t in (means2d, conics, opacities, colors, depths))
    ys, xs = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    dx, dy = xs[..., None] - means2d[:, 0], ys[..., None] - means2d[:, 1]
    sigmas = 0.5 * (conics[:, 0] * dx**2 + conics[:, 2] * dy**2) + conics[:, 1] * dx * dy
    alphas = opacities * torch.exp(-sigmas)
    # The scenes keep opacities below 0.99, where every version of gsplat agrees that alphas are not capped.
    alphas = torch.where((sigmas >= 0) & (alphas >= 1 / 255), alphas, 0.0)
    with torch.no_grad():
        going = torch.cumprod(1 - alphas, -1) > 1e-4
    alphas = torch.where(going, alphas, 0.0)
    after = torch.cumprod(1 - alphas, -1)
    weights = alphas * torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1)
    return Blended(weights @ colors, weights.sum(-1, keepdim=True), weights @ depths[:, None])


def render_with_gsplat(inputs: dict[str, Tensor], sh_degree: int | None, antialiased: bool, eps2d: float) -> Blended:
    """All views of one scene."""
    covars, _ = gsplat_torch._quat_scale_to_covar_preci(inputs["quats"], inputs["scales"], True, False)
    radii, means2d, depths, conics, factors = gsplat_torch._fully_fused_projection(
        inputs["means"], covars, inputs["viewmats"], inputs["Ks"], WIDTH, HEIGHT, eps2d=eps2d,
        calc_compensations=antialiased,
    )  # fmt: skip
    images = []
    for view in range(VIEWS):
        opacities, colors = inputs["opacities"], inputs["colors"]
        if antialiased:
            # From version 1.6 on gsplat keeps the factor from vanishing; its torch version of 1.5 does not.
            opacities = opacities * factors[view].clamp(min=0.005)
        if sh_degree is not None:
            rotation, shift = inputs["viewmats"][view, :3, :3], inputs["viewmats"][view, :3, 3]
            center = -torch.linalg.solve(rotation, shift)
            evaluated = gsplat_torch._spherical_harmonics(sh_degree, inputs["means"] - center, colors)
            colors = torch.clamp_min(evaluated + 0.5, 0.0)
        drawn = (radii[view] > 0).all(-1)
        splats = (means2d[view], conics[view], opacities, colors, depths[view])
        blended = blend(*(tensor[drawn] for tensor in splats))
        left = 1 - blended.alphas
        images.append(Blended(blended.colors + left * inputs["backgrounds"][view], blended.alphas, blended.depths))
    return Blended(*(torch.stack(parts) for parts in zip(*images)))


def make_inputs(kind: str, sh_degree: int | None) -> dict[str, Tensor]:
    scene = make_scene(kind, count=COUNT, sh_degree=sh_degree, seed=3)
    scene["opacities"] = scene["opacities"].clamp(max=0.985)
    cameras = make_cameras(views=VIEWS, width=WIDTH, height=HEIGHT, seed=3)
    inputs = {**scene, **cameras, "backgrounds": make_backgrounds(views=VIEWS)}
    return {name: tensor[0] for name, tensor in inputs.items()}


def leaves(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}


@pytest.mark.parametrize("kind", ["normal", "border", "tiny", "transparent", "opaque"])
@pytest.mark.parametrize("sh_degree", [None, 0, 3])
@pytest.mark.parametrize(("mode", "eps2d"), [("classic", 0.3), ("antialiased", 0.3), ("classic", 0.1)])
def test_images_and_gradients_are_those_of_gsplat(kind: str, sh_degree: int | None, mode: str, eps2d: float):
    inputs = make_inputs(kind, sh_degree)
    theirs, ours = leaves(inputs, torch.float64), leaves(inputs, torch.float32)
    expected = render_with_gsplat(theirs, sh_degree, mode == "antialiased", eps2d)
    options: dict[str, Any] = {"sh_degree": sh_degree, "rasterize_mode": mode, "eps2d": eps2d}
    colors, alphas, _ = rasterization(**ours, width=WIDTH, height=HEIGHT, render_mode="RGB+D", **options)
    found = Blended(colors[..., :3], alphas, colors[..., 3:])
    difference = (found.colors - expected.colors).abs().amax(-1)
    flipped = difference > FLIP
    assert int(flipped.sum()) <= MAX_FLIPPED
    loss = {"theirs": torch.zeros((), dtype=torch.float64), "ours": torch.zeros(())}
    for name, index in (("colors", 0), ("alphas", 1), ("depths", 2)):
        gap = (found[index] - expected[index]).abs().masked_fill(flipped[..., None], 0.0)
        assert gap.max() < IMAGE_TOLERANCE * (3 if name == "depths" else 1), name
        weight = torch.randn(found[index].shape, generator=torch.Generator().manual_seed(index))
        weight = weight.masked_fill(flipped[..., None], 0.0)
        loss["theirs"] = loss["theirs"] + (expected[index] * weight).sum()
        loss["ours"] = loss["ours"] + (found[index] * weight).sum()
    wanted = torch.autograd.grad(loss["theirs"], list(theirs.values()))
    given = torch.autograd.grad(loss["ours"], list(ours.values()))
    for name, want, got in zip(theirs, wanted, given):
        # Their torch version multiplies by the whole of Ks, whose skew is no parameter of a pinhole camera.
        known = want * USED_INTRINSICS if name == "Ks" else want
        assert (got - known).norm() <= GRADIENT_TOLERANCE * known.norm() + 1e-6, name


def test_an_import_is_all_that_changes():
    """The names that gsplat's own signature has are accepted, in its order."""
    theirs = importlib.import_module("gsplat.rendering").rasterization
    positional = [
        name
        for name, parameter in inspect.signature(rasterization).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert list(inspect.signature(theirs).parameters)[: len(positional)] == positional
