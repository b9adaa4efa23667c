"""The same bits for any number of threads, in any process, at any time; close results on every instruction set."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch import Tensor

from rasterizer import backend
from rasterizer.autograd import rasterize_cpu
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 75, 61


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def compute(sh_degree: int | None = 2, count: int = 700, seed: int = 3) -> list[Tensor]:
    """Images and all gradients of one fixed problem with several chunks, tiles, scenes and views."""
    leaves = {
        **make_scene("normal", batch=2, count=count, sh_degree=sh_degree, seed=seed),
        **make_cameras(batch=2, views=3, width=WIDTH, height=HEIGHT),
        "backgrounds": make_backgrounds(batch=2, views=3),
    }
    leaves = {name: tensor.requires_grad_() for name, tensor in leaves.items()}
    colors, alphas, depths, _ = rasterize_cpu(
        **leaves, width=WIDTH, height=HEIGHT, sh_degree=sh_degree, antialiased=True, depth=True
    )
    assert depths is not None
    ramp = torch.linspace(-1, 1, colors.numel()).reshape(colors.shape)
    loss = (colors * ramp).sum() + (alphas * ramp[..., :1]).sum() + (depths * alphas.detach()).mean()
    return [colors, alphas, depths, *torch.autograd.grad(loss, list(leaves.values()))]


def same_bits(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("isa", backend.available_isas())
def test_same_bits_for_any_number_of_threads(isa: str):
    backend.select_isa(isa)
    try:
        results = []
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(compute())
        assert all(same_bits(results[0], result) for result in results[1:])
    finally:
        backend.select_isa(os.environ.get(backend.ISA_VARIABLE, ""))


def test_same_bits_again_and_again():
    torch.set_num_threads(3)
    first = compute()
    assert all(same_bits(first, compute()) for _ in range(20))


@pytest.mark.parametrize("isa", backend.available_isas())
@pytest.mark.parametrize("sh_degree", [None, 2])
def test_what_earlier_passes_left_in_memory_does_not_count(isa: str, sh_degree: int | None):
    """Where no pixel saw a Gaussian in a tile, memory keeps the record that an earlier pass left in its place."""
    backend.select_isa(isa)
    try:
        first = compute(sh_degree)
        compute(sh_degree, seed=4)
        assert same_bits(first, compute(sh_degree))
    finally:
        backend.select_isa(os.environ.get(backend.ISA_VARIABLE, ""))


def test_instruction_sets_agree():
    results = {}
    for isa in backend.available_isas():
        backend.select_isa(isa)
        results[isa] = compute()
    backend.select_isa(os.environ.get(backend.ISA_VARIABLE, ""))
    reference = results.pop("baseline")
    for isa, result in results.items():
        assert (result[0] - reference[0]).abs().max() < 1e-5, isa  # observed worst 2e-6
        for ours, theirs in zip(result, reference, strict=True):
            assert (ours - theirs).norm() <= 2e-5 * theirs.norm(), isa  # observed worst 4e-6


def test_pass_stays_with_its_instruction_set():
    scene = make_scene("normal", count=100)
    cameras = make_cameras(width=32, height=32)
    gradients = []
    for change in (False, True):
        means = scene["means"].clone().requires_grad_()
        colors, *_ = rasterize_cpu(**{**scene, "means": means}, **cameras, width=32, height=32)
        if change:
            backend.select_isa("baseline")
        (gradient,) = torch.autograd.grad(colors.square().sum(), means)
        gradients.append(gradient)
    backend.select_isa(os.environ.get(backend.ISA_VARIABLE, ""))
    assert torch.equal(*gradients)


def test_backward_twice_gives_the_same():
    scene = make_scene("normal", count=100)
    means = scene["means"].requires_grad_()
    colors, *_ = rasterize_cpu(**scene, **make_cameras(width=32, height=32), width=32, height=32)
    loss = colors.square().sum()
    (first,) = torch.autograd.grad(loss, means, retain_graph=True)
    (second,) = torch.autograd.grad(loss, means)
    assert torch.equal(first, second)


def test_calls_from_several_threads():
    torch.set_num_threads(2)
    expected = [compute(seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as executor:
        for _ in range(3):
            found = list(executor.map(lambda seed: compute(seed=seed), range(4)))
            assert all(same_bits(a, b) for a, b in zip(expected, found))


def compute_without_torch(scene: dict[str, Any], cameras: dict[str, Any], ramp: Tensor) -> list[Tensor]:
    """A pass and its gradient; torch itself computes nothing, as its OpenMP threads do not survive a fork."""
    colors, *_ = rasterize_cpu(**scene, **cameras, width=WIDTH, height=HEIGHT)
    return [colors.detach(), *torch.autograd.grad(colors, scene["means"], grad_outputs=ramp)]


def send_result(connection: Connection, *arguments: Any) -> None:
    connection.send([tensor.numpy() for tensor in compute_without_torch(*arguments)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_child_gets_threads_of_its_own():
    torch.set_num_threads(2)
    scene, cameras = make_scene("normal", count=700), make_cameras(width=WIDTH, height=HEIGHT)
    scene["means"].requires_grad_()
    arguments = (scene, cameras, torch.randn(1, 2, HEIGHT, WIDTH, 3))
    expected = compute_without_torch(*arguments)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=send_result, args=(sender, *arguments))
    child.start()
    try:
        assert receiver.poll(30), "the child hangs"
        found = receiver.recv()
    finally:
        child.kill()
        child.join()
    assert all(torch.equal(a, torch.from_numpy(b)) for a, b in zip(expected, found))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [False, True])
def test_same_bits_without_gradients(channels: int, depth: bool):
    scene = make_scene("normal", count=700, channels=channels)
    arguments = {**scene, **make_cameras(width=WIDTH, height=HEIGHT), "width": WIDTH, "height": HEIGHT, "depth": depth}
    plain = rasterize_cpu(**arguments)
    scene["means"].requires_grad_()
    for found, expected in zip(plain[:3], rasterize_cpu(**arguments)[:3]):
        assert (found is None and expected is None) or torch.equal(found, expected)
    assert not plain[0].requires_grad


def test_scenes_of_one_call_equal_calls_of_one_scene():
    # So many instances that the scenes' gradients are not computed together but take turns in memory.
    size = 1024
    leaves = {**make_scene("huge", batch=3, count=400), **make_cameras(batch=3, views=1, width=size, height=size)}
    leaves = {name: tensor.requires_grad_() for name, tensor in leaves.items()}
    v_colors = torch.randn(3, 1, size, size, 3, generator=torch.Generator().manual_seed(0))
    colors, *_, info = rasterize_cpu(**leaves, width=size, height=size)
    assert int(info["instances"]) > 2 * 2**20
    together = torch.autograd.grad(colors, list(leaves.values()), v_colors)
    for i in range(3):
        alone = {name: tensor[i : i + 1] for name, tensor in leaves.items()}
        image, *_ = rasterize_cpu(**alone, width=size, height=size)
        assert torch.equal(image, colors[i : i + 1])
        gradients = torch.autograd.grad(image, list(alone.values()), v_colors[i : i + 1])
        assert same_bits([gradient[i : i + 1] for gradient in together], list(gradients))
