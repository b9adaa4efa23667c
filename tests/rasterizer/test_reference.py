from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rasterizer import rasterize_reference
from tests.rasterizer import brute_force
from tests.rasterizer.scenes import SCENE_KINDS, make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 53, 37  # not multiples of the tile, not square
FINITE_KINDS = tuple(kind for kind in SCENE_KINDS if kind != "degenerate")


def make_axis_scene(
    depths: list[float], opacities: list[float], colors: list[list[float]] | None = None, scale: float = 0.05
) -> dict[str, Any]:
    """Round splats on the optical axis of ``make_axis_camera``."""
    count = len(depths)
    means = torch.zeros(1, count, 3, dtype=torch.float64)
    means[0, :, 2] = torch.tensor(depths)
    quats = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(1, count, 4)
    return {
        "means": means,
        "quats": quats.clone(),
        "scales": torch.full((1, count, 3), scale, dtype=torch.float64),
        "opacities": torch.tensor([opacities], dtype=torch.float64),
        "colors": torch.eye(count, dtype=torch.float64)[None] if colors is None else torch.tensor([colors]).double(),
    }


def make_axis_camera(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """A camera at the origin whose axis meets the centre of pixel (8, 8) of 17 x 17."""
    K = torch.tensor([[20.0, 0, 8.5], [0, 20.0, 8.5], [0, 0, 1]], dtype=dtype)
    viewmat = torch.eye(4, dtype=dtype)
    return {"viewmats": viewmat[None, None], "Ks": K[None, None], "width": 17, "height": 17}


def test_single_splat_equals_closed_form():
    a, b, phi, opacity, z = 0.12, 0.05, 0.7, 0.8, 2.0
    fx, fy, cx, cy = 40.0, 55.0, 21.3, 14.9
    scene = make_axis_scene([z], [opacity], [[0.2, 0.5, 0.9]])
    scene["scales"] = torch.tensor([[[a, b, 0.02]]], dtype=torch.float64)
    scene["quats"] = torch.tensor([[[math.cos(phi / 2), 0, 0, math.sin(phi / 2)]]], dtype=torch.float64)
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    colors, alphas, depths, _ = rasterize_reference(
        **scene, viewmats=torch.eye(4).double()[None, None], Ks=K[None, None], width=45, height=31, depth=True
    )
    # On the axis the projection is a plain scaling by f / z and the third axis of the splat is not seen.
    c, s = math.cos(phi), math.sin(phi)
    xx = (fx / z) ** 2 * (a * a * c * c + b * b * s * s) + 0.3
    yy = (fy / z) ** 2 * (a * a * s * s + b * b * c * c) + 0.3
    xy = fx * fy / z**2 * (a * a - b * b) * c * s
    x, y = np.meshgrid(np.arange(45) + 0.5 - cx, np.arange(31) + 0.5 - cy)
    power = (yy * x * x - 2 * xy * x * y + xx * y * y) / (2 * (xx * yy - xy * xy))
    expected = opacity * np.exp(-power)
    expected[expected < 1 / 255] = 0
    # worst seen: 2e-16
    np.testing.assert_allclose(alphas[0, 0, :, :, 0].numpy(), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        colors[0, 0].numpy(), expected[..., None] * np.array([0.2, 0.5, 0.9], np.float32), rtol=0, atol=1e-14
    )
    assert depths is not None
    np.testing.assert_allclose(depths[0, 0, :, :, 0].numpy(), np.where(expected > 0, z, 0), rtol=1e-12)
    assert 50 < (expected > 0).sum() < 1000


@pytest.mark.parametrize("inria", [False, True])
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("kind", FINITE_KINDS)
def test_equals_brute_force(kind: str, antialiased: bool, inria: bool):
    scene = make_scene(kind, batch=2, dtype=torch.float64, channels=4)
    cameras = make_cameras(batch=2, views=2, width=WIDTH, height=HEIGHT, dtype=torch.float64)
    backgrounds = make_backgrounds(batch=2, channels=4, dtype=torch.float64)
    colors, alphas, depths, info = rasterize_reference(
        **scene,
        **cameras,
        width=WIDTH,
        height=HEIGHT,
        backgrounds=backgrounds,
        antialiased=antialiased,
        depth=True,
        inria=inria,
    )
    assert depths is not None
    for b in range(2):
        for v in range(2):
            image, alpha, depth = brute_force.render(
                {name: tensor[b].numpy() for name, tensor in scene.items()},
                cameras["viewmats"][b, v].numpy(),
                cameras["Ks"][b, v].numpy(),
                (WIDTH, HEIGHT),
                background=backgrounds[b, v].numpy(),
                antialiased=antialiased,
                inria=inria,
            )
            # worst seen: colours 4e-15, alphas 3e-15, depths 2e-13
            np.testing.assert_allclose(colors[b, v].numpy(), image, rtol=0, atol=1e-12)
            np.testing.assert_allclose(alphas[b, v, ..., 0].numpy(), alpha, rtol=0, atol=1e-12)
            np.testing.assert_allclose(depths[b, v, ..., 0].numpy(), depth, rtol=0, atol=1e-11)
    assert info["nonfinite"] == 0
    assert (alphas > 0).any() or (antialiased and kind in ("tiny", "transparent"))


@pytest.mark.parametrize("kind", FINITE_KINDS)
def test_float32_is_close_to_float64(kind: str):
    results = []
    for dtype in (torch.float32, torch.float64):
        scene, cameras = make_scene(kind, dtype=dtype), make_cameras(width=WIDTH, height=HEIGHT, dtype=dtype)
        results.append(rasterize_reference(**scene, **cameras, width=WIDTH, height=HEIGHT)[0].double())
    off = (results[0] - results[1]).abs().amax(-1)
    # worst seen: 1.6e-6, in "tiny"; no flips of the threshold, but other processors may round to some
    assert (off > 2e-5).sum() <= 2
    assert off.max() < 2 / 255


def test_near_splat_hides_far_splat_whatever_the_order_of_the_arrays():
    red_in_front = make_axis_scene([1.0, 2.0], [0.9, 0.9])
    red_behind = make_axis_scene([2.0, 1.0], [0.9, 0.9])
    for scene, front in ((red_in_front, 0), (red_behind, 1)):
        pixel = rasterize_reference(**scene, **make_axis_camera())[0][0, 0, 8, 8]
        torch.testing.assert_close(pixel[front].item(), 0.9)
        torch.testing.assert_close(pixel[1 - front].item(), 0.1 * 0.9)


def test_equal_depths_are_blended_by_index():
    scene = make_axis_scene([1.5] * 5, [0.5] * 5)
    pixel = rasterize_reference(**scene, **make_axis_camera())[0][0, 0, 8, 8]
    torch.testing.assert_close(pixel, torch.tensor([0.5**k for k in range(1, 6)], dtype=torch.float64))


def test_background_shows_through_what_is_left():
    scene, camera = make_axis_scene([1.0], [0.75], [[1.0, 0.0, 0.0]]), make_axis_camera()
    background = torch.tensor([[[0.2, 0.4, 0.8]]], dtype=torch.float64)
    colors, alphas, _, _ = rasterize_reference(**scene, **camera, backgrounds=background)
    torch.testing.assert_close(colors[0, 0, 8, 8], torch.tensor([0.75, 0, 0]).double() + 0.25 * background[0, 0])
    torch.testing.assert_close(colors[0, 0, 0, 0], background[0, 0])
    assert alphas[0, 0, 0, 0] == 0


@pytest.mark.parametrize(("depth", "drawn"), [(0.99, False), (1.0, True), (3.0, True), (3.01, False), (-2.0, False)])
def test_near_and_far_planes_are_inclusive(depth: float, drawn: bool):
    scene = make_axis_scene([depth], [0.5])
    _, alphas, _, info = rasterize_reference(**scene, **make_axis_camera(), near_plane=1.0, far_plane=3.0)
    assert bool((alphas > 0).any()) is drawn
    assert info["culled"] == int(not drawn)


def test_transmittance_stop_excludes_the_splat_and_all_later_ones():
    # T after each: 0.02, 4e-4, 8e-6 (stop, excluded); the last would leave 3.6e-4 but comes after the stop.
    scene = make_axis_scene([1.0, 1.1, 1.2, 1.3], [0.98, 0.98, 0.98, 0.1])
    colors, alphas, _, _ = rasterize_reference(**scene, **make_axis_camera())
    expected = torch.tensor([0.98, 0.02 * 0.98, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(colors[0, 0, 8, 8], expected)
    torch.testing.assert_close(1 - alphas[0, 0, 8, 8].item(), 4e-4)
    # Where the third is faint enough not to stop the pixel, the last one is blended.
    assert (colors[0, 0, :, :, 3] > 0).any()


def test_transmittance_equal_to_the_stop_stops():
    # Opacities of which the third brings T to exactly the bound, and to the next number above it, in float64.
    second = np.linspace(0.981, 0.989, 100_000)
    before = 0.5 * (1 - second)
    third = 1 - 1e-4 / before
    after = before * (1 - third)
    for bound, drawn in ((1e-4, False), (np.nextafter(1e-4, 1), True)):
        (hits,) = np.nonzero(after == bound)
        scene = make_axis_scene([1.0, 1.1, 1.2], [0.5, float(second[hits[0]]), float(third[hits[0]])])
        colors, _, _, _ = rasterize_reference(**scene, **make_axis_camera())
        assert bool(colors[0, 0, 8, 8, 2] > 0) is drawn


def test_alpha_is_clamped_without_gradient():
    scene, camera = make_axis_scene([1.0], [1.0], [[1.0]]), make_axis_camera()
    inputs = {name: tensor.requires_grad_() for name, tensor in scene.items()}
    alphas = rasterize_reference(**inputs, **camera)[1]
    assert alphas[0, 0, 8, 8].item() == pytest.approx(0.99, abs=1e-15)
    gradients = torch.autograd.grad(
        alphas[0, 0, 8, 8].sum(), [inputs[n] for n in ("means", "scales", "opacities")], retain_graph=True
    )
    assert all((gradient == 0).all() for gradient in gradients)
    assert torch.autograd.grad(alphas[0, 0, 8, 10].sum(), inputs["opacities"])[0].item() > 0.1


@pytest.mark.parametrize(("opacity", "drawn"), [(0.99 / 255, False), (1.01 / 255, True)])
def test_threshold_cuts_faint_splats(opacity: float, drawn: bool):
    _, alphas, _, info = rasterize_reference(**make_axis_scene([1.0], [opacity]), **make_axis_camera())
    assert (alphas > 0).sum() == int(drawn)
    assert info["culled"] == int(not drawn)


@pytest.mark.parametrize("scale", [0.05, 1e-6])
def test_antialiasing_dims_by_the_area_of_the_filter(scale: float):
    scene, camera = make_axis_scene([1.0], [0.9], scale=scale), make_axis_camera()
    alphas = rasterize_reference(**scene, **camera, antialiased=True)[1]
    variance = (20.0 * scale) ** 2
    # The dilation adds 0.3 to both variances; the factor is the root of the ratio of areas, at least 0.005.
    factor = max(0.005, variance / (variance + 0.3))
    torch.testing.assert_close(alphas[0, 0, 8, 8].item(), 0.9 * factor, rtol=1e-6, atol=0)


def test_moving_scene_and_camera_together_changes_nothing():
    scene = make_scene("normal", dtype=torch.float64)
    cameras = make_cameras(width=WIDTH, height=HEIGHT, dtype=torch.float64)
    w, x, y, z = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8, 0.2], dtype=torch.float64), dim=0)
    turn = torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
            torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
            torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
        ]
    )
    shift = torch.tensor([0.7, -3.0, 2.0], dtype=torch.float64)
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = turn, shift
    a, b, c, d = scene["quats"].unbind(-1)
    moved = dict(scene)
    moved["means"] = scene["means"] @ turn.T + shift
    moved["quats"] = torch.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ],
        -1,
    )
    moved_cameras = {"viewmats": cameras["viewmats"] @ torch.linalg.inv(motion), "Ks": cameras["Ks"]}
    before = rasterize_reference(**scene, **cameras, width=WIDTH, height=HEIGHT, depth=True)
    after = rasterize_reference(**moved, **moved_cameras, width=WIDTH, height=HEIGHT, depth=True)
    for one, other in zip(before[:3], after[:3]):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)  # worst seen: 6e-14


def test_shifting_the_principal_point_by_whole_pixels_shifts_the_image():
    scene = make_scene("normal", dtype=torch.float64, count=20)
    scene["means"] *= 0.3
    cameras = make_cameras(width=WIDTH, height=HEIGHT, views=1, dtype=torch.float64)
    before = rasterize_reference(**scene, **cameras, width=WIDTH, height=HEIGHT)[0]
    shifted = cameras["Ks"] + torch.tensor([[0, 0, 5.0], [0, 0, -3.0], [0, 0, 0]])
    after = rasterize_reference(**scene, viewmats=cameras["viewmats"], Ks=shifted, width=WIDTH, height=HEIGHT)[0]
    torch.testing.assert_close(after[:, :, :-3, 5:], before[:, :, 3:, :-5], rtol=0, atol=1e-12)


def test_splats_that_are_not_finite_are_dropped_counted_and_get_zero_gradient():
    scene = {name: t.requires_grad_() for name, t in make_scene("degenerate", dtype=torch.float64).items()}
    cameras = make_cameras(width=WIDTH, height=HEIGHT, dtype=torch.float64)
    colors, alphas, depths, info = rasterize_reference(
        **scene, **cameras, width=WIDTH, height=HEIGHT, depth=True, antialiased=True
    )
    assert depths is not None
    assert all(image.isfinite().all() for image in (colors, alphas, depths))
    assert info["nonfinite"] == 9 * 2  # in both views
    (colors.sum() + alphas.sum() + depths.sum()).backward()
    for name, tensor in scene.items():
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all(), name
        assert (tensor.grad[:, :9] == 0).all(), name
        assert (tensor.grad[:, 14:] != 0).any(), name
    kept = {name: tensor.detach()[:, 9:] for name, tensor in scene.items()}
    again = rasterize_reference(**kept, **cameras, width=WIDTH, height=HEIGHT, antialiased=True)
    torch.testing.assert_close(again[0], colors.detach(), rtol=0, atol=1e-14)


def test_projections_that_overflow_are_dropped_and_counted():
    scene = make_axis_scene([1.0, 1.2], [0.5, 0.5])
    scene = {name: tensor.float() for name, tensor in scene.items()}
    scene["scales"][0, 0] = 1e30
    camera = make_axis_camera(torch.float32)
    colors, _, _, info = rasterize_reference(**scene, **camera)
    assert info["nonfinite"] == 1
    torch.testing.assert_close(colors[0, 0, 8, 8], torch.tensor([0.0, 0.5]))


@pytest.mark.parametrize("backgrounds", [None, torch.tensor([[[0.1, 0.2, 0.3]]])])
def test_empty_scene_is_background(backgrounds: Tensor | None):
    scene = {name: tensor[:, :0].float() for name, tensor in make_axis_scene([1.0], [1.0], [[1.0, 1.0, 1.0]]).items()}
    camera = make_axis_camera(torch.float32)
    colors, alphas, depths, info = rasterize_reference(**scene, **camera, backgrounds=backgrounds, depth=True)
    assert depths is not None
    assert info == {"instances": 0, "culled": 0, "nonfinite": 0, "backend": "reference"}
    expected = torch.zeros(3) if backgrounds is None else backgrounds[0, 0]
    assert (colors == expected).all()
    assert not alphas.any()
    assert not depths.any()
