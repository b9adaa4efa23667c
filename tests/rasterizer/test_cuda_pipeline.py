"""The CUDA core's host side, with emulated kernels: chunks, fixed capacity, waiting."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from rasterizer import cuda_chunks, cuda_stages
from rasterizer.cuda_chunks import Costs
from tests.rasterizer.cuda_calls import BATCH, SIZE, VIEWS, assert_same_bits, compute, make_leaves
from tests.rasterizer.emulated import emulated_rasterize, load_emulation
from tests.rasterizer.scenes import Inputs, look_at, make_cameras, make_scene

ALLOCATORS = (torch.empty, torch.full)  # as they are before this folder's fixture wraps them


class GuardedMemory(TorchFunctionMode):
    """Fresh tensors get a tail that nobody may write."""

    TAIL, VALUE = 64, 0x5A

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in ALLOCATORS:
            return func(*args, **(kwargs or {}))
        plain = func(*args, **(kwargs or {}))
        block = torch.full((plain.numel() * plain.element_size() + self.TAIL,), self.VALUE, dtype=torch.uint8)
        self.blocks.append(block)
        return block[: -self.TAIL].view(plain.dtype).view(plain.shape).copy_(plain)

    def check(self) -> None:
        assert self.blocks
        assert all((block[-self.TAIL :] == self.VALUE).all() for block in self.blocks)


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Scenes and views of every projection from here on."""
    seen: list[tuple[int, int]] = []
    project = cuda_stages.Stages.project

    def project_seen(stages: cuda_stages.Stages) -> cuda_stages.Counted:
        seen.append((stages.params.batch, stages.params.views))
        return project(stages)

    monkeypatch.setattr(cuda_stages.Stages, "project", project_seen)
    return seen


def bytes_for(images: int, leaves: Inputs, instances: int) -> int:
    """A budget with room for about so many of the call's images."""
    count = leaves["means"].shape[1]
    costs = Costs(gaussians=count, tiles=4 * 3, record=6 + 3 + 1, budget=0)
    assumed = costs.count_bytes(1, cuda_chunks.EXPECTED_INSTANCES * count)
    return images * max(assumed, costs.count_bytes(1, 2 * instances // (BATCH * VIEWS)))


def test_chunks_of_scenes_give_the_same_bits(chunks: list[tuple[int, int]]):
    leaves = make_leaves()
    expected = compute(leaves)
    assert chunks == [(BATCH, VIEWS)]
    found = compute(leaves, max_bytes=bytes_for(2 * VIEWS, leaves, expected.info["instances"]))
    # Twice: the lists of several chunks are made again for the backward pass.
    assert chunks[1:] == 2 * [(2, VIEWS), (1, VIEWS)]
    assert_same_bits(found.images, expected.images)
    assert_same_bits(found.gradients, expected.gradients)
    assert found.info == expected.info


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("sh_degree", [None, 2])
def test_chunks_of_views_accumulate(chunks: list[tuple[int, int]], images: int, sh_degree: int | None):
    leaves = make_leaves(sh_degree=sh_degree)
    expected = compute(leaves, sh_degree=sh_degree)
    chunks.clear()
    found = compute(leaves, sh_degree=sh_degree, max_bytes=bytes_for(images, leaves, expected.info["instances"]))
    assert chunks == 2 * BATCH * ([(1, 1)] * VIEWS if images == 1 else [(1, 3), (1, 1)])
    assert found.info == expected.info
    assert_same_bits(found.images, expected.images)
    # Gradients of a covariance are turned into those of axes and scales once per chunk.
    rounded = {name: found.gradients.pop(name) for name in ("quats", "scales")}
    for name, gradient in rounded.items():
        error = (gradient - expected.gradients.pop(name)).norm() / gradient.norm()
        assert error < 2e-6, name  # observed worst 3.3e-7
    assert_same_bits(found.gradients, expected.gradients)


def test_chunks_with_too_many_instances_are_cut_again(chunks: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch):
    leaves = make_leaves(count=20)
    expected = compute(leaves)
    chunks.clear()
    monkeypatch.setattr(cuda_chunks, "EXPECTED_INSTANCES", 0)
    instances = int(expected.info["instances"])
    budget = Costs(gaussians=20, tiles=12, record=10, budget=0).count_bytes(BATCH * VIEWS, instances // 2)
    found = compute(leaves, max_bytes=budget)
    assert chunks[0] == (BATCH, VIEWS)
    assert len(chunks) > 3
    assert sum(scenes * views for scenes, views in chunks[1:]) >= 2 * BATCH * VIEWS
    assert_same_bits(found.images, expected.images)
    assert found.info == expected.info


def test_chunks_leave_no_memory_behind(monkeypatch: pytest.MonkeyPatch):
    leaves, lists = make_leaves(), []
    project, make_lists = cuda_stages.Stages.project, cuda_stages.Stages.list

    def project_alone(stages: cuda_stages.Stages) -> cuda_stages.Counted:
        assert [reference for reference in lists if reference() is not None] == []
        return project(stages)

    def list_seen(stages: cuda_stages.Stages, counted: cuda_stages.Counted, slots: int) -> cuda_stages.Lists:
        made = make_lists(stages, counted, slots)
        lists.extend(weakref.ref(tensor) for tensor in (*made, *counted))
        return made

    monkeypatch.setattr(cuda_stages.Stages, "project", project_alone)
    monkeypatch.setattr(cuda_stages.Stages, "list", list_seen)
    compute(leaves, max_bytes=bytes_for(2, leaves, 0))
    assert len(lists) == 2 * BATCH * VIEWS // 2 * 11
    images = emulated_rasterize(**leaves, **SIZE)
    assert [reference for reference in lists if reference() is not None] != []
    del images
    assert [reference for reference in lists if reference() is not None] == []


def test_other_keys_and_atomics(monkeypatch: pytest.MonkeyPatch):
    leaves = make_leaves()
    expected = compute(leaves)
    atomics = compute(leaves, deterministic=False)
    assert_same_bits(atomics.images, expected.images)
    for name, gradient in expected.gradients.items():
        error = (atomics.gradients[name] - gradient).norm() / gradient.norm()
        assert error < 2e-6, (name, float(error))
    monkeypatch.setattr("rasterizer.cuda_sorting.LARGEST_SHORT", 5)
    wide = compute(leaves)
    assert_same_bits(wide.images, expected.images)
    assert_same_bits(wide.gradients, expected.gradients)


@pytest.mark.parametrize("tiles", [65535, 65536])
def test_keys_at_the_limit_of_16_bits(tiles: int):
    """As many images of one tile, each of which shows one Gaussian, and three slots too many."""
    inputs = cuda_stages.Inputs(
        means=torch.zeros(1, 1, 3), quats=torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), scales=torch.full((1, 1, 3), 0.1),
        opacities=torch.full((1, 1), 0.5), colors=torch.ones(1, 1, 3),
        viewmats=look_at(torch.tensor([0.0, 0.0, -4.0]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0])).expand(
            1, tiles, 4, 4).contiguous(),
        intrinsics=torch.tensor([[20.0, 0.0, 8.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]]).expand(
            1, tiles, 3, 3).contiguous(),
        backgrounds=None,
    )  # fmt: skip
    options = cuda_stages.Options(
        width=16, height=16, sh_degree=None, near_plane=0.01, far_plane=100.0, eps2d=0.3, antialiased=False, depth=True
    )
    stages = cuda_stages.Stages(load_emulation(3, True), inputs, options)
    assert stages.key_type == (torch.int16 if tiles == 65535 else torch.int32)
    lists = stages.list(stages.project(), tiles + 3)
    first = torch.arange(tiles, dtype=torch.int32)
    assert torch.equal(lists.tile_ranges, torch.stack([first, first + 1], 1))
    assert torch.equal(lists.entries[:tiles, 1], first)
    assert (lists.entries[:tiles, 0] == 0x3C << 24).all()  # Gaussian 0, the four sub-tiles in the middle


@pytest.mark.parametrize("spare", [0, 1, 1000])
@pytest.mark.parametrize("deterministic", [True, False])
def test_capacity_gives_the_same_bits(spare: int, deterministic: bool):
    leaves = make_leaves()
    expected = compute(leaves, deterministic=deterministic)
    capacity = expected.info["instances"] + spare
    found = compute(leaves, max_instances=capacity, deterministic=deterministic)
    assert_same_bits(found.images, expected.images)
    assert_same_bits(found.gradients, expected.gradients)
    assert not found.info.pop("overflowed")
    assert all(isinstance(found.info[name], Tensor) for name in ("instances", "culled", "nonfinite"))
    assert found.info == expected.info


@pytest.mark.parametrize("capacity", [0, 1, 100])
@pytest.mark.parametrize("deterministic", [True, False])
def test_overflow_is_flagged_and_writes_nothing_outside(capacity: int, deterministic: bool):
    leaves = make_leaves()
    expected = compute(leaves)
    guard = GuardedMemory()
    with guard:
        found = compute(leaves, max_instances=capacity, deterministic=deterministic)
    guard.check()
    assert found.info["overflowed"]
    assert found.info["instances"] == expected.info["instances"]
    assert all(image.isfinite().all() for image in found.images.values())
    assert all(gradient.isfinite().all() for gradient in found.gradients.values())
    # The nearest Gaussians of the first image are there, the last image is empty.
    assert (found.images["alphas"][0, 0] > 0).any() or capacity == 0
    assert (found.images["alphas"][-1, -1] == 0).all()
    assert torch.equal(found.images["colors"][-1, -1, 5, 5], leaves["backgrounds"][-1, -1])


class ForbidReading(TorchDispatchMode):
    """Fails where the host reads a number out of a tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


def test_host_waits_once_per_chunk_or_never(monkeypatch: pytest.MonkeyPatch):
    leaves, reads = make_leaves(), 0
    tolist = Tensor.tolist

    def count_reads(tensor: Tensor) -> Any:
        nonlocal reads
        reads += 1
        return tolist(tensor)

    monkeypatch.setattr(Tensor, "tolist", count_reads)
    with ForbidReading():
        compute(leaves)
        assert reads == 1
        compute(leaves, max_bytes=bytes_for(1, leaves, 0))
        assert reads == 1 + BATCH * VIEWS
        compute(leaves, max_instances=10_000)
        assert reads == 1 + BATCH * VIEWS


@pytest.mark.parametrize("depth", [False, True])
def test_pixels_replay_only_what_their_subtile_meets(depth: bool):
    """Images are linear in the colours, also where masks (drawn at random here) hide Gaussians from sub-tiles."""
    arguments = {**make_scene("normal", count=200), **make_cameras(views=2, width=40, height=48)}
    inputs = cuda_stages.Inputs(
        *(
            arguments[name].contiguous()
            for name in ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
        ),
        backgrounds=None,
    )
    options = cuda_stages.Options(
        width=40, height=48, sh_degree=None, near_plane=0.01, far_plane=100.0, eps2d=0.3, antialiased=False, depth=depth
    )
    stages = cuda_stages.Stages(load_emulation(3, depth), inputs, options)
    counted = stages.project()
    slots = int(counted.counters[0])
    lists = stages.list(counted, slots)
    random = torch.Generator().manual_seed(0)
    lists.entries[:, 0] &= torch.randint(256, (slots,), generator=random, dtype=torch.int32) << 24 | 0xFFFFFF
    shape = (1, 2, 48, 40)
    images = cuda_stages.Images(
        torch.zeros(*shape, 3), torch.zeros(*shape, 1), torch.zeros(*shape, 1) if depth else None,
        torch.zeros(shape, dtype=torch.int32),
    )  # fmt: skip
    stages.blend(lists, images)
    v_colors = torch.rand(*shape, 3, generator=random)
    features = torch.empty_like(inputs.colors)
    outgoing = cuda_stages.Gradients(None, None, None, None, features, None, None, None)
    stages.differentiate(lists, slots, images, cuda_stages.Incoming(v_colors, None, None), outgoing, accumulate=False)
    found = (features.double() * inputs.colors).flatten(0, -2).sum(0)
    expected = (v_colors.double() * images.colors).flatten(0, -2).sum(0)
    assert (found / expected - 1).abs().max() < 1e-6  # observed 2.2e-9; 0.12 without the check of the own bit
