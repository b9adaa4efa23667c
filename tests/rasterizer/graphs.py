"""Rasterizing in graphs of torch; run as ``python -m tests.rasterizer.graphs NAME``, prints "equal" at the end."""

from __future__ import annotations

import gc
import io
import socket
import sys
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from rasterizer import Render, rasterize
from tests.rasterizer.scenes import Inputs, make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 37, 22


def make_tensors(sh_degree: int | None) -> Inputs:
    return {
        **make_scene("normal", batch=2, count=30, sh_degree=sh_degree),
        **make_cameras(batch=2, views=2, width=WIDTH, height=HEIGHT),
        "backgrounds": make_backgrounds(batch=2, views=2),
    }


def total_loss(render: Render) -> Tensor:
    assert render.depths is not None
    assert render.normals is not None
    weights = torch.linspace(-1, 1, render.colors.numel()).reshape(render.colors.shape)
    parts = [render.colors * weights, render.alphas.square(), render.depths * 0.1, render.normals * weights]
    return torch.stack([part.sum() for part in parts]).sum()


def compare_compiled(sh_degree: int | None) -> None:
    """Values, gradients and counts have the same bits."""

    def compute(tensors: Inputs) -> list[Tensor]:
        render = rasterize(**tensors, width=WIDTH, height=HEIGHT, sh_degree=sh_degree, depth=True, normals=True)
        counts = [torch.as_tensor(render.info[name]) for name in ("instances", "culled")]
        return [total_loss(render), render.colors, *counts]

    tensors = {name: tensor.requires_grad_() for name, tensor in make_tensors(sh_degree).items()}
    results = []
    for function in (compute, torch.compile(compute, fullgraph=True, backend="aot_eager")):
        outputs = function(tensors)
        results.append([*outputs, *torch.autograd.grad(outputs[0], list(tensors.values()))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def compile_plain() -> None:
    compare_compiled(None)


def compile_harmonics() -> None:
    compare_compiled(1)


class Painter(nn.Module):
    """A tiny model whose parameters are a scene, seen from the cameras it is given."""

    def __init__(self) -> None:
        super().__init__()
        scene = make_scene("normal", count=30)
        self.scene = nn.ParameterDict({name: nn.Parameter(tensor[0]) for name, tensor in scene.items()})

    def forward(self, viewmats: Tensor, Ks: Tensor) -> Tensor:
        return rasterize(**self.scene, viewmats=viewmats, Ks=Ks, width=WIDTH, height=HEIGHT).colors


def make_batch() -> tuple[Tensor, Tensor]:
    cameras = make_cameras(views=4, width=WIDTH, height=HEIGHT)
    return cameras["viewmats"][0], cameras["Ks"][0]


def export_forward() -> None:
    """An exported model survives being saved, and serves another number of views."""
    model, cameras = Painter(), make_batch()
    views = torch.export.Dim("views", min=2, max=16)
    exported = torch.export.export(model, cameras, dynamic_shapes=({0: views}, {0: views}))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    with torch.no_grad():
        assert torch.equal(loaded(*cameras), model(*cameras))
        fewer = [tensor[:3].contiguous() for tensor in cameras]
        assert torch.equal(loaded(*fewer), model(*fewer))


def export_training() -> None:
    """Gradients flow through an exported model."""
    model, cameras = Painter(), make_batch()
    exported = torch.export.export(model, cameras).module()
    gradients = []
    for function in (model, exported):
        loss = function(*cameras).square().sum()
        gradients.append(torch.autograd.grad(loss, list(function.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def differentiate_half(rank: int) -> list[Tensor]:
    model = nn.parallel.DistributedDataParallel(Painter())
    half = slice(2 * rank, 2 * rank + 2)
    model(*(tensor[half] for tensor in make_batch())).square().mean().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def train_rank(rank: int, port: int, path: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    # The model is gone before its process group: gloo's threads must not outlive the interpreter.
    gradients = differentiate_half(rank)
    gc.collect()
    if rank == 0:
        torch.save(gradients, path)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def wrap_in_data_parallel() -> None:
    """Two processes with two views each find the gradient of all four."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        spawn(train_rank, args=(port, file.name), nprocs=2)
        found = torch.load(file.name)
    model = Painter()
    model(*make_batch()).square().mean().backward()
    for (name, parameter), gradient in zip(model.named_parameters(), found, strict=True):
        assert parameter.grad is not None
        error = (parameter.grad - gradient).norm() / gradient.norm()
        assert error < 4e-6, (name, float(error))  # observed worst 4.0e-7 (quats)


CHECKS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (compile_plain, compile_harmonics, export_forward, export_training, wrap_in_data_parallel)
}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
    print("equal")
