"""Options of ``rasterize`` that choose a core or a convention: compat, deterministic, max_instances, units of Ks."""

from __future__ import annotations

import pytest
import torch

from rasterizer import rasterize
from tests.rasterizer.emulated import emulated_rasterize
from tests.rasterizer.test_api import HEIGHT, WIDTH, make_arguments


def test_gpu_tensors_go_to_the_cuda_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rasterizer.api.choose_backend", lambda name, means: "cuda")
    monkeypatch.setattr("rasterizer.cuda_autograd.rasterize_cuda", emulated_rasterize)
    arguments = {**make_arguments((2,)), "backend": "auto"}
    arguments["means"].requires_grad_()
    render = rasterize(**arguments, depth=True, normals=True, compat="inria", deterministic=False)
    expected = rasterize(**arguments, depth=True, max_instances=1000)
    assert render.info["backend"] == "cuda"
    assert render.normals is not None
    assert not torch.equal(render.colors, expected.colors)  # compat reached the kernels
    assert not expected.info["overflowed"]
    assert rasterize(**arguments, max_instances=3).info["overflowed"]
    render.normals.sum().backward()
    assert arguments["means"].grad.isfinite().all()


def test_near_plane_of_compat_inria():
    arguments = make_arguments()
    # The first splat stands at a depth of 0.1 before the first camera.
    viewmat = arguments["viewmats"][0]
    arguments["means"][0] = viewmat[:3, :3].T @ (torch.tensor([0.0, 0.0, 0.1]) - viewmat[:3, 3])
    found = rasterize(**arguments, compat="inria")
    assert torch.equal(found.colors, rasterize(**arguments, compat="inria", near_plane=0.2).colors)
    assert found.info["culled"] > rasterize(**arguments, compat="inria", near_plane=0.01).info["culled"]
    assert torch.equal(rasterize(**arguments).colors, rasterize(**arguments, near_plane=0.01).colors)


def test_intrinsics_divided_by_the_image_size_are_refused():
    arguments = make_arguments()
    scale = torch.tensor([WIDTH, HEIGHT, 1.0])[:, None]
    with pytest.raises(ValueError, match=r"^Ks: expected intrinsics in pixels.* multiply row 0 by width"):
        rasterize(**{**arguments, "Ks": arguments["Ks"] / scale})
    # One camera with a long focal length, or a tiny image, may be meant.
    mixed = torch.stack([arguments["Ks"][0] / scale, arguments["Ks"][1]])
    rasterize(**{**arguments, "Ks": mixed})
    rasterize(**{**arguments, "Ks": arguments["Ks"] / scale, "width": 8, "height": 8})
