"""The same scene by both calls; only the import and the call differ for users of gsplat."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from rasterizer import rasterization, rasterize
from rasterizer.spherical_harmonics import coefficient_count
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT, VIEWS = 41, 30, 3
GSPLAT_ARGUMENTS = (
    "means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "width", "height", "near_plane",
    "far_plane", "radius_clip", "eps2d", "sh_degree", "packed", "tile_size", "backgrounds", "render_mode",
    "sparse_grad", "absgrad", "rasterize_mode", "channel_chunk", "distributed", "camera_model", "segmented",
    "covars",
)  # fmt: skip


def make_arguments(batch: int | None = None, sh_degree: int | None = None) -> dict[str, Any]:
    scene = make_scene("normal", batch=batch or 1, count=25, sh_degree=sh_degree)
    cameras = make_cameras(batch=batch or 1, views=VIEWS, width=WIDTH, height=HEIGHT)
    tensors = {**scene, **cameras}
    if batch is None:
        tensors = {name: tensor[0] for name, tensor in tensors.items()}
    return {**tensors, "width": WIDTH, "height": HEIGHT, "backend": "reference"}


def test_argument_names_and_order_are_those_of_gsplat():
    positional = [
        name
        for name, parameter in inspect.signature(rasterization).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert tuple(positional) == GSPLAT_ARGUMENTS


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("sh_degree", [None, 2])
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
def test_both_calls_give_equal_images(batch: int | None, sh_degree: int | None, rasterize_mode: str):
    arguments = make_arguments(batch, sh_degree)
    backgrounds = make_backgrounds(batch=batch or 1, views=VIEWS)
    backgrounds = backgrounds if batch else backgrounds[0]

    colors, alphas, meta = rasterization(
        **arguments, sh_degree=sh_degree, backgrounds=backgrounds, rasterize_mode=rasterize_mode, packed=False
    )
    render = rasterize(
        **arguments, sh_degree=sh_degree, backgrounds=backgrounds, antialiased=rasterize_mode == "antialiased"
    )

    assert torch.equal(colors, render.colors)
    assert torch.equal(alphas, render.alphas)
    assert {"width": WIDTH, "height": HEIGHT, "n_cameras": VIEWS}.items() <= meta.items()
    assert meta["instances"] == render.info["instances"]


def test_positional_call():
    arguments = make_arguments()
    positional: list[Any] = [arguments[name] for name in GSPLAT_ARGUMENTS[:9]]
    positional += [2.6, 2.9, 0.0, 0.1]
    colors, _, _ = rasterization(*positional, backend="reference")
    render = rasterize(**arguments, near_plane=2.6, far_plane=2.9, eps2d=0.1)
    assert torch.equal(colors, render.colors)
    assert render.alphas.any()


@pytest.mark.parametrize("render_mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_render_modes(render_mode: str):
    arguments = make_arguments()
    backgrounds = make_backgrounds(views=VIEWS)[0]
    colors, alphas, _ = rasterization(**arguments, backgrounds=backgrounds, render_mode=render_mode)
    render = rasterize(**arguments, backgrounds=backgrounds, depth=True)
    assert torch.equal(alphas, render.alphas)
    assert render.depths is not None
    parts = []
    if render_mode.startswith("RGB"):
        parts.append(render.colors)
    if render_mode.endswith("ED"):
        parts.append(render.depths)
    elif render_mode.endswith("D"):
        # Accumulated depth is what the depths give as a colour channel over black.
        depths = (
            torch.einsum("vj,nj->vn", arguments["viewmats"][:, 2, :3], arguments["means"])
            + arguments["viewmats"][:, 2, 3:]
        )
        per_view = [rasterize(**{**arguments, "colors": depths[v][:, None]}).colors[v] for v in range(VIEWS)]
        parts.append(torch.stack(per_view))
    # worst seen: 1.2e-7 in "D", a division by alpha and back
    torch.testing.assert_close(colors, torch.cat(parts, -1), rtol=0, atol=2e-6)


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("sh_degree", [None, 1])
def test_colors_per_camera(batch: int | None, sh_degree: int | None):
    arguments = make_arguments(batch, sh_degree)
    tail = (3,) if sh_degree is None else (coefficient_count(sh_degree), 3)
    lead = () if batch is None else (batch,)
    per_camera = torch.rand(*lead, VIEWS, 25, *tail)
    backgrounds = torch.rand(*lead, VIEWS, 3)
    arguments["means"].requires_grad_()
    options = {"sh_degree": sh_degree, "backgrounds": backgrounds}
    colors, alphas, meta = rasterization(**{**arguments, **options, "colors": per_camera}, render_mode="RGB+ED")
    assert meta["n_cameras"] == VIEWS
    assert alphas.shape == (*lead, VIEWS, HEIGHT, WIDTH, 1)
    for v in range(VIEWS):
        own = per_camera.select(len(lead), v)
        render = rasterize(**{**arguments, **options, "colors": own}, depth=True)
        assert render.depths is not None
        expected = torch.cat([render.colors, render.depths], -1).select(len(lead), v)
        torch.testing.assert_close(colors.select(len(lead), v), expected, rtol=0, atol=1e-6)
    assert torch.autograd.grad(colors.sum(), arguments["means"])[0].abs().sum() > 0
    with pytest.raises(ValueError, match=r"^colors: expected shape \[..., C, N, ...\], C = 3"):
        rasterization(
            **{
                **arguments,
                **options,
                "colors": per_camera[..., :1].expand_as(per_camera).narrow(len(lead), 0, 2),
            }
        )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("radius_clip", 3.0),
        ("sparse_grad", True),
        ("absgrad", True),
        ("distributed", True),
        ("covars", torch.eye(3).expand(25, 3, 3)),
        ("with_ut", True),
        ("radial_coeffs", torch.zeros(3, 4)),
        ("global_z_order", False),
    ],
)
def test_unsupported_options_are_refused(option: str, value: Any):
    with pytest.raises(ValueError, match=f"^{option}.*: not supported by rasterizer.rasterization"):
        rasterization(**make_arguments(), **{option: value})


@pytest.mark.parametrize(
    ("option", "value"), [("camera_model", "fisheye"), ("render_mode", "rgb"), ("rasterize_mode", "mip")]
)
def test_unknown_modes_are_refused(option: str, value: Any):
    with pytest.raises(ValueError, match=f"^{option}: expected one of .*, got '{value}'"):
        rasterization(**make_arguments(), **{option: value})


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'backgroud'"):
        rasterization(**make_arguments(), backgroud=None)


def test_options_of_speed_change_nothing():
    arguments = make_arguments()
    colors = rasterization(**arguments)[0]
    options = {"packed": False, "tile_size": 8, "channel_chunk": 4, "segmented": True, "with_ut": False}
    assert torch.equal(colors, rasterization(**arguments, **options)[0])
