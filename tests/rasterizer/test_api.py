from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rasterizer
from rasterizer import Render, rasterize, rasterize_reference
from rasterizer.backend import BackendError
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 33, 18


def make_arguments(batch: tuple[int, ...] = (), count: int = 12, views: int = 2, **scene: Any) -> dict[str, Any]:
    flat = 1
    for size in batch:
        flat *= size
    tensors = {
        **make_scene("normal", batch=flat, count=count, **scene),
        **make_cameras(batch=flat, views=views, width=WIDTH, height=HEIGHT),
        "backgrounds": make_backgrounds(batch=flat, views=views, channels=scene.get("channels", 3)),
    }
    shaped = {name: tensor.reshape(*batch, *tensor.shape[1:]) for name, tensor in tensors.items()}
    return {**shaped, "width": WIDTH, "height": HEIGHT, "backend": "reference"}


def test_public_names():
    assert sorted(rasterizer.__all__) == [
        "Render", "available_backends", "rasterization", "rasterize", "rasterize_reference",
    ]  # fmt: skip
    assert all(callable(getattr(rasterizer, name)) for name in rasterizer.__all__)


def test_import_loads_no_compiled_library():
    """In a fresh process: no file of the package is mapped, and nothing heavy comes besides torch."""
    script = (
        "import sys, ctypes, rasterizer\n"
        "maps = open('/proc/self/maps').read() if sys.platform == 'linux' else ''\n"
        "folder = rasterizer.__path__[0]\n"
        "print([line for line in maps.splitlines() if folder in line])\n"
        "heavy = ('rasterizer.autograd', 'cgsgan', 'scipy', 'einops')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    folder = rasterizer.__path__[0].rsplit("/", 1)[0]
    result = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[]", "[]"]


@settings(max_examples=12, deadline=None)
@given(
    batch=st.lists(st.integers(1, 2), max_size=3).map(tuple),
    count=st.integers(0, 5),
    views=st.integers(1, 3),
    channels=st.integers(1, 5),
    depth=st.booleans(),
)
def test_shapes(batch: tuple[int, ...], count: int, views: int, channels: int, depth: bool):
    render = rasterize(**make_arguments(batch, count, views, channels=channels), depth=depth)
    assert isinstance(render, Render)
    assert render.colors.shape == (*batch, views, HEIGHT, WIDTH, channels)
    assert render.alphas.shape == (*batch, views, HEIGHT, WIDTH, 1)
    assert (render.depths is not None) is depth
    if render.depths is not None:
        assert render.depths.shape == render.alphas.shape
    assert set(render.info) >= {"instances", "culled", "nonfinite", "backend"}


def test_batch_equals_single_scenes():
    arguments = make_arguments((2, 3))
    together = rasterize(**arguments, depth=True)
    for i in range(2):
        for j in range(3):
            one: dict[str, Any] = {name: x[i, j] if isinstance(x, Tensor) else x for name, x in arguments.items()}
            alone = rasterize(**one, depth=True)
            torch.testing.assert_close(alone.colors, together.colors[i, j], rtol=0, atol=1e-6)
            assert alone.depths is not None
            assert together.depths is not None
            torch.testing.assert_close(alone.depths, together.depths[i, j], rtol=0, atol=1e-5)


def test_result_is_that_of_the_flat_reference():
    arguments = make_arguments((2,))
    render = rasterize(**arguments, antialiased=True, eps2d=0.1, near_plane=2.6, far_plane=2.9, depth=True)
    arguments.pop("backend")
    colors, alphas, depths, info = rasterize_reference(
        **arguments, antialiased=True, eps2d=0.1, near_plane=2.6, far_plane=2.9, depth=True
    )
    assert torch.equal(render.colors, colors)
    assert torch.equal(render.alphas, alphas)
    assert depths is not None
    assert render.depths is not None
    assert torch.equal(render.depths, depths)
    assert render.info == info


def test_gradients_reach_every_argument():
    arguments = make_arguments((2,), sh_degree=1)
    wanted = {name: x.requires_grad_() for name, x in arguments.items() if isinstance(x, Tensor)}
    render = rasterize(**arguments, sh_degree=1, depth=True)
    assert render.depths is not None
    (render.colors.sum() + render.alphas.sum() + render.depths.sum()).backward()
    for name, tensor in wanted.items():
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert (tensor.grad != 0).any(), name


@pytest.mark.parametrize(
    ("name", "shape", "fix"),
    [
        ("means", (12, 2), "[..., N, 3]"),
        ("quats", (12, 3), "[12, 4]"),
        ("scales", (11, 3), "[12, 3]"),
        ("opacities", (12, 1), "[12]"),
        ("colors", (11, 3), "[12, 3]"),
        ("colors", (12, 0), "C >= 1"),
        ("viewmats", (4, 4), "viewmats[None]"),
        ("viewmats", (2, 3, 4), "[2, 4, 4]"),
        ("viewmats", (0, 4, 4), "V >= 1"),
        ("Ks", (1, 3, 3), "[2, 3, 3]"),
        ("Ks", (2, 4, 4), "[2, 3, 3]"),
        ("backgrounds", (3,), "[2, 3]"),
        ("backgrounds", (2, 4), "[2, 3]"),
    ],
)
def test_wrong_shapes_name_argument_and_expectation(name: str, shape: tuple[int, ...], fix: str):
    arguments = make_arguments()
    arguments[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=f"^{name}: expected shape .*{re.escape(str(list(shape)))}") as error:
        rasterize(**arguments)
    assert fix in str(error.value)


def test_batch_axes_must_agree():
    arguments = make_arguments((2,))
    arguments["viewmats"] = arguments["viewmats"][:1]
    with pytest.raises(ValueError, match=r"^viewmats: expected shape \[2, 2, 4, 4\].*got \[1, 2, 4, 4\]"):
        rasterize(**arguments)
    arguments = make_arguments((2,))
    empty: dict[str, Any] = {name: x[:0] if isinstance(x, Tensor) else x for name, x in arguments.items()}
    with pytest.raises(ValueError, match=r"^means: expected batch axes without zeros"):
        rasterize(**empty)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("width", 0, "^width: expected an integer of at least 1"),
        ("height", -3, "^height: expected an integer of at least 1"),
        ("near_plane", 0.0, "0 < near_plane < far_plane, got 0.0"),
        ("far_plane", 0.001, "0 < near_plane < far_plane"),
        ("near_plane", float("nan"), "0 < near_plane < far_plane"),
        ("eps2d", -0.1, "^eps2d: expected a finite number >= 0"),
        ("sh_degree", 4, "^sh_degree: expected None or an integer from 0 to 3, got 4"),
        ("sh_degree", 1, r"^colors: with sh_degree=1 expected coefficients .* K >= 4"),
        ("compat", "2023", "^compat: expected None or one of inria, got '2023'"),
        ("max_instances", -1, "^max_instances: expected None or an integer from 0"),
        ("max_instances", 100, "^max_instances: only the \"cuda\" backend .* 'reference'; leave it out"),
        ("backend", "gpu", "^backend: expected one of auto, cpu, cuda, reference, got 'gpu'"),
    ],
)
def test_wrong_options(option: str, value: object, message: str):
    with pytest.raises(ValueError, match=message):
        rasterize(**{**make_arguments(), option: value})


def test_too_few_coefficients():
    arguments = make_arguments(sh_degree=1)
    with pytest.raises(ValueError, match=r"K >= 9, got \[12, 4, 3\]"):
        rasterize(**arguments, sh_degree=2)


@pytest.mark.parametrize("name", ["quats", "colors", "Ks", "backgrounds"])
def test_wrong_types_and_devices(name: str):
    arguments = make_arguments()
    with pytest.raises(ValueError, match=rf"^{name}: expected torch\.float32 like means, got torch\.float64"):
        rasterize(**{**arguments, name: arguments[name].double()})
    with pytest.raises(ValueError, match=rf"^{name}: expected a float tensor, got torch.int64"):
        rasterize(**{**arguments, name: arguments[name].long()})
    with pytest.raises(ValueError, match=f"^{name}: expected device cpu like means, got meta"):
        rasterize(**{**arguments, name: arguments[name].to("meta")})


def test_what_is_no_tensor_is_named():
    # Without the run-time type checks of these tests, as users call it.
    script = (
        "import torch, rasterizer\n"
        "try:\n"
        "    rasterizer.rasterize([[0.0] * 3], *[None] * 6, 8, 8)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    folder = rasterizer.__path__[0].rsplit("/", 1)[0]
    result = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout == "means: expected a torch.Tensor, got list\n"


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_compiled_backend_refuses_what_it_cannot_serve(backend: str):
    double = {name: x.double() if isinstance(x, Tensor) else x for name, x in make_arguments().items()}
    with pytest.raises(ValueError, match=r'float64; convert with .float\(\), or backend="reference"'):
        rasterize(**{**double, "backend": backend})
    meta = {name: x.to("meta") if isinstance(x, Tensor) else x for name, x in make_arguments().items()}
    with pytest.raises(ValueError, match=r'means is on meta; use .cpu\(\), or backend="reference"'):
        rasterize(**{**meta, "backend": backend})


def test_auto_never_falls_back_to_the_reference(monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise BackendError("it is not there")

    monkeypatch.setattr("rasterizer.backend.load_library", fail)
    with pytest.raises(
        ValueError, match=r'compiled CPU core is not available: it is not there; or backend="reference"'
    ):
        rasterize(**{**make_arguments(), "backend": "auto"})


@pytest.mark.parametrize(("name", "fix"), [("cuda", ".cuda()"), ("cpu", ".cpu()"), ("auto", ".cpu()")])
def test_backends_serve_their_own_devices(name: str, fix: str):
    device = "cpu" if name == "cuda" else "meta"
    moved = {key: x.to(device) if isinstance(x, Tensor) else x for key, x in make_arguments().items()}
    with pytest.raises(ValueError, match=rf"^backend: '{name}' serves .* means is on {device}; use {re.escape(fix)}"):
        rasterize(**{**moved, "backend": name})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype):
    half: dict[str, Any] = {name: x.to(dtype) if isinstance(x, Tensor) else x for name, x in make_arguments().items()}
    half["means"].requires_grad_()
    render = rasterize(**half)
    assert render.colors.dtype == torch.float32
    render.colors.sum().backward()
    assert half["means"].grad.dtype == dtype
    full: dict[str, Any] = {name: x.detach().float() if isinstance(x, Tensor) else x for name, x in half.items()}
    assert torch.equal(render.colors, rasterize(**full).colors)


def test_autocast_changes_nothing():
    arguments = make_arguments()
    plain = rasterize(**arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rasterize(**arguments)
    assert cast.colors.dtype == torch.float32
    assert torch.equal(plain.colors, cast.colors)


def test_non_finite_splats_are_counted_per_view():
    arguments = make_arguments((2,), count=20, views=3)
    arguments["means"][0, 4, 1] = float("nan")
    arguments["quats"][1, 7] = 0
    render = rasterize(**arguments)
    assert render.info["nonfinite"] == 2 * 3
    assert render.info["culled"] >= 2 * 3
    assert render.colors.isfinite().all()


def test_no_splats_give_the_background():
    arguments = make_arguments((2,), count=0)
    render = rasterize(**arguments, depth=True)
    expected = arguments["backgrounds"][:, :, None, None].expand_as(render.colors)
    assert torch.equal(render.colors, expected)
    assert render.info["instances"] == 0
