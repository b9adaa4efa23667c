"""The compiled CPU core against the float64 reference: images and every gradient, by name."""

from __future__ import annotations

import pytest

from rasterizer.autograd import rasterize_cpu
from tests.rasterizer.comparison import DEPTH_GRADIENT_TOLERANCE, TOLERANCE, compare, make_arguments
from tests.rasterizer.scenes import SCENE_KINDS


def compare_kind(
    kind: str,
    *,
    count: int = 60,
    width: int = 53,
    height: int = 37,
    channels: int = 3,
    sh_degree: int | None = None,
    antialiased: bool = False,
    inria: bool = False,
    tolerance: float = TOLERANCE,
    depth_tolerance: float = DEPTH_GRADIENT_TOLERANCE,
) -> None:
    arguments = make_arguments(kind, count, channels, sh_degree, width, height)
    if inria:  # quaternions are used raw: of other lengths than about 1 they would make scenes of other kinds
        lengths = arguments["quats"].norm(dim=-1, keepdim=True).clamp(min=1e-20)
        arguments["quats"] = arguments["quats"] / lengths * (0.85 + 0.3 * lengths / (1 + lengths))
    compare(
        rasterize_cpu, arguments, tolerance=tolerance, depth_tolerance=depth_tolerance, width=width, height=height,
        sh_degree=sh_degree, antialiased=antialiased, inria=inria,
    )  # fmt: skip


@pytest.mark.parametrize("inria", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in SCENE_KINDS if kind != "degenerate"])
def test_every_kind_of_scene(kind: str, inria: bool):
    compare_kind(kind, inria=inria)


@pytest.mark.parametrize("inria", [False, True])
def test_degenerate_scene(inria: bool):
    # A needle of 3 by 1e-5 by 1e-5 passes the camera: float32 knows its width to 4 digits. Observed 2.7e-4, 4.7e-4;
    # with inria, whose gradient by the quaternion's length joins in, 1.8e-3, 3.5e-3 (quats).
    compare_kind("degenerate", inria=inria, tolerance=6e-3 if inria else 2e-3, depth_tolerance=4e-3)


@pytest.mark.parametrize("inria", [False, True])
@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_antialiased(kind: str, inria: bool):
    compare_kind(kind, antialiased=True, inria=inria, width=35, height=50)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_channels(channels: int):
    compare_kind("normal", channels=channels, width=33, height=20)


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["normal", "border"])
def test_spherical_harmonics(kind: str, sh_degree: int):
    compare_kind(kind, sh_degree=sh_degree, width=40, height=31)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 1), (3, 66), (100, 5)])
def test_sizes(width: int, height: int):
    compare_kind("normal", width=width, height=height)
    compare_kind("normal", width=width, height=height, inria=True)


@pytest.mark.parametrize("inria", [False, True])
def test_long_lists_and_many_chunks(inria: bool):
    # More than one chunk of Gaussians, and lists long enough for every branch of the sort.
    # Observed with inria: 6.1e-5 (backgrounds); the transmittance of hidden pixels, 1e-4, is kept as 1 - alpha.
    compare_kind("opaque", count=1500, width=20, height=17, inria=inria, tolerance=2e-4 if inria else TOLERANCE)
    compare_kind("transparent", count=1500, width=20, height=17, inria=inria)
