"""Bad numbers, empty scenes, odd memory: the kernels write every output element and never read what they must not.

Integers that torch hands out unwritten are poisoned here too, and all of it has a tail that nobody may write.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rasterizer import cuda_stages
from rasterizer.backend import BackendError
from tests.rasterizer.cuda_devices import DEVICES, RASTERIZERS
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 37, 23
TAIL = 64  # elements
POISON = 0x7E  # of every byte: large integers, floats of 1e37

pytestmark = pytest.mark.parametrize("device", DEVICES)


class Memory:
    """What the stages allocate unwritten, poisoned and with a tail."""

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []

    def empty(self, stages: cuda_stages.Stages, rows: int, *row: int, dtype: torch.dtype = torch.float32) -> Tensor:
        elements = max(rows, 1) * math.prod(row)
        block = torch.full(((elements + TAIL) * dtype.itemsize,), POISON, dtype=torch.uint8, device=stages.device)
        self.blocks.append(block)
        return block.view(dtype)[:elements].view(max(rows, 1), *row)

    def check(self, tail_bytes: int = 2 * TAIL) -> None:
        """The end of the tail; the narrowest element has two bytes."""
        assert self.blocks
        assert all((block[-tail_bytes:] == POISON).all() for block in self.blocks)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    memory = Memory()

    def allocate(stages: cuda_stages.Stages, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return memory.empty(stages, *shape, dtype=dtype)

    monkeypatch.setattr(cuda_stages.Stages, "empty", allocate)
    yield memory
    memory.check()


def render(
    device: str, scene: dict[str, Tensor], *, sh_degree: int | None = None, depth: bool = True, **options: Any
) -> tuple[list[Tensor], dict[str, Any], dict[str, Tensor]]:
    """Images, info, and the gradients of everything."""
    batch, channels = scene["means"].shape[0], scene["colors"].shape[-1]
    leaves = {
        **scene,
        **make_cameras(batch=batch, width=WIDTH, height=HEIGHT),
        "backgrounds": make_backgrounds(batch=batch, channels=channels),
    }
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in leaves.items()}
    size = {"width": WIDTH, "height": HEIGHT, "sh_degree": sh_degree, "depth": depth}
    colors, alphas, depths, info = RASTERIZERS[device](**leaves, **size, **options)
    outputs = [colors, alphas] + ([depths] if depths is not None else [])
    loss = sum((output * output.detach()).sum() for output in outputs)
    assert isinstance(loss, Tensor)
    return outputs, info, dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()))))


def assert_finite(outputs: list[Tensor], gradients: dict[str, Tensor]) -> None:
    assert all(output.isfinite().all() for output in outputs)
    assert not [name for name, gradient in gradients.items() if not gradient.isfinite().all()]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize(("channels", "sh_degree"), [(3, None), (1, None), (6, None), (3, 3)])
def test_every_element_is_written(device: str, channels: int, sh_degree: int | None, depth: bool, deterministic: bool):
    scene = make_scene("normal", batch=2, count=40, channels=channels, sh_degree=sh_degree)
    outputs, _, gradients = render(device, scene, sh_degree=sh_degree, depth=depth, deterministic=deterministic)
    assert_finite(outputs, gradients)


@pytest.mark.parametrize("inria", [False, True])
@pytest.mark.parametrize("kind", ["behind", "degenerate", "transparent", "huge", "tiny"])
def test_odd_scenes_stay_finite(device: str, kind: str, inria: bool):
    outputs, _, gradients = render(device, make_scene(kind, batch=2, count=100), inria=inria)
    assert_finite(outputs, gradients)


def test_bad_splats_change_nothing_but_the_counts(device: str):
    clean = make_scene("normal", count=40)
    bad = {name: tensor[:, :9] for name, tensor in make_scene("degenerate", count=20).items()}
    mixed = {name: torch.cat([bad[name], tensor], 1) for name, tensor in clean.items()}
    outputs, info, gradients = render(device, mixed)
    expected, clean_info, clean_gradients = render(device, clean)
    assert info["nonfinite"] == 9 * 2
    assert info["culled"] == 9 * 2 + int(clean_info["culled"])
    assert info["instances"] == clean_info["instances"]
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected))
    for name, gradient in gradients.items():
        if name in clean:
            assert (gradient[:, :9] == 0).all(), name
            assert torch.equal(gradient[:, 9:], clean_gradients[name]), name
        else:
            # Camera gradients are summed in another order, as the splats have moved to other threads.
            assert torch.allclose(gradient, clean_gradients[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_bad_color_in_any_channel_drops_the_splat(device: str, channels: int):
    scene = make_scene("normal", count=20, channels=channels)
    scene["colors"][0, 4, channels - 1] = math.nan
    outputs, info, gradients = render(device, scene)
    assert info["nonfinite"] == 2
    assert_finite(outputs, gradients)


def test_unused_coefficients_are_not_looked_at(device: str):
    scene = make_scene("normal", count=20, sh_degree=3)
    scene["colors"][:, :, 4:] = math.nan
    outputs, info, gradients = render(device, scene, sh_degree=1)
    assert info["nonfinite"] == 0
    assert_finite(outputs, gradients)
    assert (gradients["colors"][:, :, 4:] == 0).all()


@pytest.mark.parametrize("value", [1e15, 1e30])
def test_overflowing_projections_are_dropped(device: str, value: float):
    scene = make_scene("normal", count=20)
    scene["scales"][0, 3] = value
    outputs, info, gradients = render(device, scene)
    assert_finite(outputs, gradients)
    assert info["nonfinite"] in (0, 2)


def test_bad_cameras_give_the_background(device: str):
    scene = make_scene("normal", count=20)
    cameras = make_cameras(width=WIDTH, height=HEIGHT)
    cameras["viewmats"][0, 0, 2, 3] = math.nan
    backgrounds = make_backgrounds()
    colors, alphas, _, info = RASTERIZERS[device](
        **scene, **cameras, backgrounds=backgrounds, width=WIDTH, height=HEIGHT
    )
    assert info["nonfinite"] == 20
    assert (alphas[0, 0] == 0).all()
    assert (colors[0, 0] == backgrounds[0, 0]).all()


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("sh_degree", [None, 2])
def test_few_splats(device: str, count: int, sh_degree: int | None):
    scene = make_scene("normal", batch=2, count=count, sh_degree=sh_degree)
    scene["means"] = 0.01 * scene["means"]
    outputs, info, gradients = render(device, scene, sh_degree=sh_degree)
    assert_finite(outputs, gradients)
    assert (info["instances"] == 0) == (count == 0)
    if count == 0:
        assert torch.equal(outputs[0][:, :, 5, 5], make_backgrounds(batch=2))
        assert (outputs[1] == 0).all()
        assert (outputs[2] == 0).all()
        assert (gradients["viewmats"] == 0).all()


def test_unseen_splats_have_exact_zeros(device: str):
    scene = make_scene("normal", count=30)
    scene["means"][0, :10, 0] = 50.0
    _, info, gradients = render(device, scene)
    assert info["culled"] >= 20
    assert all((gradients[name][0, :10] == 0).all() for name in scene)
    assert (gradients["means"][0, 10:] != 0).any(-1).sum() > 10


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("deterministic", [True, False])
def test_too_little_room_leaves_instances_out(device: str, share: float, deterministic: bool):
    # The fixture checks that nothing is written behind the memory there is.
    scene = make_scene("huge", count=30)
    _, info, _ = render(device, scene)
    room = int(share * info["instances"])
    outputs, limited, gradients = render(device, scene, max_instances=room, deterministic=deterministic)
    assert bool(limited["overflowed"])
    assert int(limited["instances"]) == info["instances"]
    assert_finite(outputs, gradients)
    if room == 0:
        assert (outputs[1] == 0).all()


def test_an_image_beyond_the_budget_is_an_error(device: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RASTERIZER_CUDA_BYTES", "20000")
    with pytest.raises(BackendError, match="RASTERIZER_CUDA_BYTES"):
        render(device, make_scene("huge", count=100))
