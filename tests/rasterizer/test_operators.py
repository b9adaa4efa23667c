"""The operators for graphs: what torch demands of them, and the same bits as eager calls."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rasterizer import operators
from rasterizer.autograd import rasterize_cpu
from tests.rasterizer import emulated
from tests.rasterizer.emulated import emulated_rasterize
from tests.rasterizer.scenes import Inputs, make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 37, 22
SIZE: dict[str, Any] = {"width": WIDTH, "height": HEIGHT}
NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")


def serve_by_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "PIPELINE", emulated.PIPELINE)
    monkeypatch.setattr(operators, "is_served_by_cuda", lambda means: True)


@pytest.fixture(params=["cpu", "cuda"])
def eager_call(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The eager call of the core that serves the operators; that of CUDA runs emulated kernels."""
    if request.param == "cpu":
        return rasterize_cpu
    serve_by_cuda(monkeypatch)
    return emulated_rasterize


def make_tensors(*, batch: int = 2, views: int = 2, sh_degree: int | None = None, **scene: Any) -> Inputs:
    return {
        **make_scene("normal", batch=batch, count=30, sh_degree=sh_degree, **scene),
        **make_cameras(batch=batch, views=views, width=WIDTH, height=HEIGHT),
        "backgrounds": make_backgrounds(batch=batch, views=views, channels=scene.get("channels", 3)),
    }


def make_options(*, sh_degree: int = -1, depth: bool = True) -> tuple[Any, ...]:
    return WIDTH, HEIGHT, sh_degree, 0.01, 1e10, 0.3, False, depth, False, True, -1


@pytest.mark.parametrize(
    ("sh_degree", "depth", "background"), [(None, True, True), (2, False, True), (None, False, False)]
)
@pytest.mark.usefixtures("eager_call")
def test_torch_accepts_the_operators(sh_degree: int | None, depth: bool, background: bool):
    tensors = make_tensors(sh_degree=sh_degree)
    arguments: list[Any] = [tensors[name].requires_grad_() for name in NAMES]
    if not background:
        arguments[-1] = None
    options = make_options(sh_degree=-1 if sh_degree is None else sh_degree, depth=depth)
    results = torch.library.opcheck(torch.ops.rasterizer.render.default, (*arguments, *options))
    assert set(results.values()) == {"SUCCESS"}

    images = torch.ops.rasterizer.render(*arguments, *options)
    grads = [torch.randn_like(image) for image in images[: 3 if depth else 2]] + ([] if depth else [None])
    wanted = [True] * 7 + [background]
    inputs = [None if tensor is None else tensor.detach() for tensor in arguments]
    results = torch.library.opcheck(torch.ops.rasterizer.render_backward.default, (*grads, *inputs, *options, wanted))
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize(("channels", "sh_degree", "depth"), [(3, 2, True), (3, None, False), (35, None, True)])
def test_operator_equals_eager_call(eager_call: Callable[..., Any], channels: int, sh_degree: int | None, depth: bool):
    tensors = make_tensors(sh_degree=sh_degree, channels=channels)
    leaves = [tensor.requires_grad_() for name, tensor in tensors.items() if name != "scales"]
    found = []
    for function in (eager_call, operators.rasterize_opaque):
        colors, alphas, depths, info = function(**tensors, **SIZE, sh_degree=sh_degree, depth=depth)
        loss = (colors * colors.detach()).sum() + (alphas.sum() if depths is None else depths.square().sum())
        counts = [torch.as_tensor(info[name]) for name in ("instances", "culled", "nonfinite")]
        images = [colors, alphas, *([] if depths is None else [depths])]
        found.append([*images, *counts, *torch.autograd.grad(loss, leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_capacity_in_a_graph(monkeypatch: pytest.MonkeyPatch):
    serve_by_cuda(monkeypatch)
    tensors = make_tensors()
    expected, *_, expected_info = emulated_rasterize(**tensors, **SIZE)
    for lacking in (0, 1):
        capacity = expected_info["instances"] - lacking
        colors, *_, info = operators.rasterize_opaque(**tensors, **SIZE, max_instances=capacity)
        assert info["overflowed"].item() is bool(lacking)
        assert torch.equal(colors, expected) is not bool(lacking)


def test_inference_mode(eager_call: Callable[..., Any]):
    tensors = {name: tensor.requires_grad_() for name, tensor in make_tensors().items()}
    expected, *_ = eager_call(**tensors, **SIZE)
    with torch.inference_mode():
        for function in (eager_call, operators.rasterize_opaque):
            colors, *_ = function(**tensors, **SIZE)
            assert colors.is_inference()
            assert torch.equal(colors, expected)


def test_autocast_computes_in_float32(eager_call: Callable[..., Any]):
    tensors = make_tensors()
    tensors["means"].requires_grad_()
    for function in (eager_call, operators.rasterize_opaque):
        results = []
        for enabled in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                colors, *_ = function(**tensors, **SIZE)
            results.append([colors, *torch.autograd.grad(colors.square().sum(), tensors["means"])])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        assert results[1][0].dtype == torch.float32


@pytest.mark.parametrize(
    "name", ["compile_plain", "compile_harmonics", "export_forward", "export_training", "wrap_in_data_parallel"]
)
def test_graphs_in_a_process_without_run_time_type_checks(name: str):
    # Those of the other tests cannot be traced.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.rasterizer.graphs", name],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.strip().endswith("equal")
