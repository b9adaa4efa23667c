"""The CUDA kernels against the float64 reference: images and every gradient, by name.

Kernels run emulated on the CPU and, where there is one, on a GPU.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from rasterizer import cuda_stages
from rasterizer.cuda_sorting import choose_key_type
from tests.rasterizer.comparison import DEPTH_GRADIENT_TOLERANCE, TOLERANCE, compare, make_arguments
from tests.rasterizer.cuda_devices import DEVICES, RASTERIZERS
from tests.rasterizer.scenes import SCENE_KINDS, make_backgrounds, make_cameras, make_scene

pytestmark = pytest.mark.parametrize("device", DEVICES)


def shorten_quats(arguments: dict[str, Tensor]) -> None:
    """Lengths of 0.8 to 1.1, as compat="inria" takes quaternions as they are: longer ones blow up the scene."""
    quats = arguments["quats"]
    lengths = 0.8 + 0.1 * quats.norm(dim=-1, keepdim=True).clamp(max=3)
    arguments["quats"] = torch.nn.functional.normalize(quats, dim=-1) * lengths * (quats != 0).any(-1, keepdim=True)


def compare_kind(
    device: str,
    kind: str,
    *,
    count: int = 60,
    channels: int = 3,
    sh_degree: int | None = None,
    width: int = 53,
    height: int = 37,
    tolerance: float = TOLERANCE,
    depth_tolerance: float = DEPTH_GRADIENT_TOLERANCE,
    deterministic: bool = True,
    **options: object,
) -> None:
    arguments = make_arguments(kind, count, channels, sh_degree, width, height)
    if options.get("inria"):
        shorten_quats(arguments)
    if kind == "degenerate":
        # A needle of 3 by 1e-5 by 1e-5 passes the camera: float32 knows its width to 4 digits. Observed 3.4e-4, 6.6e-4.
        tolerance, depth_tolerance = 50 * tolerance, 4 * depth_tolerance
    compare(
        partial(RASTERIZERS[device], deterministic=deterministic), arguments, sh_degree=sh_degree, width=width,
        height=height, tolerance=tolerance, depth_tolerance=depth_tolerance, **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_every_kind_of_scene(device: str, kind: str):
    compare_kind(device, kind)


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_antialiased(device: str, kind: str):
    compare_kind(device, kind, antialiased=True, width=35, height=50)


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_inria(device: str, kind: str):
    compare_kind(device, kind, inria=True, near_plane=0.2, width=35, height=29)


@pytest.mark.parametrize("channels", [1, 2, 5, 6, 9, 32])
def test_channels(device: str, channels: int):
    compare_kind(device, "normal", channels=channels, width=33, height=20)


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["normal", "border"])
def test_spherical_harmonics(device: str, kind: str, sh_degree: int):
    compare_kind(device, kind, sh_degree=sh_degree, width=40, height=31)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 1), (3, 66), (100, 5)])
def test_sizes(device: str, width: int, height: int):
    compare_kind(device, "normal", width=width, height=height)


@pytest.mark.parametrize("kind", ["opaque", "transparent"])
def test_long_lists(device: str, kind: str):
    # Several batches in both directions, several blocks of Gaussians.
    compare_kind(device, kind, count=1500, width=20, height=17)


def test_large_splats_on_many_tiles(device: str):
    # More than 32 tiles each: emission and the gathering of gradients by whole warps.
    compare_kind(device, "huge", count=20, width=115, height=98)


def test_many_views(device: str):
    # More cameras than a block prepares at once.
    scene = make_scene("normal", batch=2, count=12, seed=3)
    cameras = make_cameras(batch=2, views=35, width=19, height=21, seed=1)
    backgrounds = {"backgrounds": make_backgrounds(batch=2, views=35)}
    compare(RASTERIZERS[device], {**scene, **cameras, **backgrounds}, width=19, height=21)


@pytest.mark.parametrize("channels", [3, 6])
def test_gradients_by_atomics(device: str, channels: int):
    compare_kind(device, "normal", channels=channels, deterministic=False)


def test_keys_of_both_sizes(device: str, monkeypatch: pytest.MonkeyPatch):
    assert choose_key_type(2**16 - 1) == torch.int16
    assert choose_key_type(2**16) == torch.int32
    monkeypatch.setattr(cuda_stages, "choose_key_type", lambda tiles: torch.int32)
    compare_kind(device, "normal")


def test_depth_changes_nothing_else(device: str):
    arguments = make_arguments("normal", 60, 3, None, 53, 37)
    results = []
    for depth in (False, True):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in arguments.items()}
        colors, alphas, depths, _ = RASTERIZERS[device](**leaves, width=53, height=37, depth=depth)
        assert (depths is not None) == depth
        loss = colors.square().sum() + alphas.sum()
        results.append([colors, alphas, *torch.autograd.grad(loss, list(leaves.values()))])
    for without, with_depth in zip(*results, strict=True):
        # The same sums in the same order; a compiler for GPUs may fuse other products into them.
        assert (without - with_depth).norm() <= 1e-6 * with_depth.norm()
