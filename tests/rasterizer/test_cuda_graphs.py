"""What only a GPU has: CUDA graphs, streams, threads without a context. Everything else is tested by emulation."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from rasterizer import rasterize
from rasterizer.autograd import rasterize_cpu
from tests.rasterizer.cuda_calls import SIZE, make_leaves
from tests.rasterizer.scenes import Inputs

pytestmark = pytest.mark.gpu
CAPACITY = 20_000


def move(leaves: Inputs) -> Inputs:
    return {name: tensor.detach().cuda().requires_grad_() for name, tensor in leaves.items()}


def compute(leaves: Inputs, **options: Any) -> list[Tensor]:
    colors = rasterize(**leaves, **SIZE, **options).colors
    return [colors, *torch.autograd.grad(colors.square().sum(), list(leaves.values()))]


def test_steps_are_captured_in_a_cuda_graph():
    leaves = move(make_leaves())
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        compute(leaves, max_instances=CAPACITY)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = compute(leaves, max_instances=CAPACITY)
    for shift in (0.0, 0.1):
        with torch.no_grad():
            leaves["means"].add_(shift)
        graph.replay()
        expected = compute(leaves)
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


def test_other_streams_and_threads_give_the_same_bits():
    leaves = move(make_leaves())
    expected, found = compute(leaves), []

    def work() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            found.append(compute(leaves))
            torch.cuda.current_stream().synchronize()

    torch.cuda.synchronize()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found[0], expected, strict=True))


def test_operator_equals_eager():
    from rasterizer.operators import rasterize_opaque

    leaves = move(make_leaves())
    colors, *_ = rasterize_opaque(**leaves, **SIZE)
    gradients = torch.autograd.grad(colors.square().sum(), list(leaves.values()))
    assert all(torch.equal(a, b) for a, b in zip([colors, *gradients], compute(leaves), strict=True))


def test_gpu_agrees_with_the_cpu_core():
    leaves = make_leaves()
    expected, *_ = rasterize_cpu(**leaves, **SIZE)
    found, *_ = compute(move(leaves))
    # Where float32 falls on the other side of a step, a pixel differs by up to 1/255 of a colour.
    assert ((found.cpu() - expected).abs() > 1e-4).double().mean() < 0.002
