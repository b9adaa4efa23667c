"""Bad numbers, empty scenes, odd memory: the core writes every output element and never reads what it must not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rasterizer import autograd
from rasterizer.autograd import MemoryPool, rasterize_cpu
from tests.rasterizer.scenes import make_backgrounds, make_cameras, make_scene

WIDTH, HEIGHT = 37, 23


@pytest.fixture(autouse=True)
def poisoned_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scratch memory holds NaN and huge integers, as the rest does through the folder's fixture."""
    take = MemoryPool.take

    def take_poisoned(pool: MemoryPool, size: int) -> Tensor:
        return take(pool, size).fill_(255)

    monkeypatch.setattr(MemoryPool, "take", take_poisoned)
    yield
    autograd.pool.clear()


def render(
    scene: dict[str, Tensor], *, sh_degree: int | None = None, depth: bool = True
) -> tuple[list[Tensor], dict[str, int | str], dict[str, Tensor]]:
    """Images, info, and the gradients of everything."""
    batch, channels = scene["means"].shape[0], scene["colors"].shape[-1]
    leaves = {
        **scene,
        **make_cameras(batch=batch, width=WIDTH, height=HEIGHT),
        "backgrounds": make_backgrounds(batch=batch, channels=channels),
    }
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in leaves.items()}
    colors, alphas, depths, info = rasterize_cpu(**leaves, width=WIDTH, height=HEIGHT, sh_degree=sh_degree, depth=depth)
    outputs = [colors, alphas] + ([depths] if depths is not None else [])
    loss = sum((output * output.detach()).sum() for output in outputs)
    assert isinstance(loss, Tensor)
    return outputs, info, dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()))))


def assert_finite(outputs: list[Tensor], gradients: dict[str, Tensor]) -> None:
    assert all(output.isfinite().all() for output in outputs)
    assert not [name for name, gradient in gradients.items() if not gradient.isfinite().all()]


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize(("channels", "sh_degree"), [(3, None), (1, None), (5, None), (3, 0), (3, 3)])
def test_every_element_is_written(channels: int, sh_degree: int | None, depth: bool):
    scene = make_scene("normal", batch=2, count=40, channels=channels, sh_degree=sh_degree)
    outputs, _, gradients = render(scene, sh_degree=sh_degree, depth=depth)
    assert_finite(outputs, gradients)


@pytest.mark.parametrize("kind", ["behind", "degenerate", "transparent", "huge", "tiny"])
def test_odd_scenes_stay_finite(kind: str):
    outputs, _, gradients = render(make_scene(kind, batch=2, count=300))
    assert_finite(outputs, gradients)


def test_bad_splats_change_nothing_but_the_counts():
    clean = make_scene("normal", count=40)
    bad = {name: tensor[:, :9] for name, tensor in make_scene("degenerate", count=20).items()}
    mixed = {name: torch.cat([bad[name], tensor], 1) for name, tensor in clean.items()}
    outputs, info, gradients = render(mixed)
    expected, clean_info, clean_gradients = render(clean)
    assert info["nonfinite"] == 9 * 2
    assert info["culled"] == 9 * 2 + int(clean_info["culled"])
    assert info["instances"] == clean_info["instances"]
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected))
    for name, gradient in gradients.items():
        if name in clean:
            assert (gradient[:, :9] == 0).all(), name
            gradient = gradient[:, 9:]  # noqa: PLW2901 - the part that has a counterpart
        # Camera gradients are summed in another order, as the splats have moved to other lanes.
        assert torch.allclose(gradient, clean_gradients[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("channels", [1, 3])
def test_bad_color_in_any_channel_drops_the_splat(channels: int):
    scene = make_scene("normal", count=20, channels=channels)
    scene["colors"][0, 4, channels - 1] = math.nan
    outputs, info, gradients = render(scene)
    assert info["nonfinite"] == 2
    assert_finite(outputs, gradients)


def test_unused_coefficients_are_not_looked_at():
    scene = make_scene("normal", count=20, sh_degree=3)
    scene["colors"][:, :, 4:] = math.nan
    outputs, info, gradients = render(scene, sh_degree=1)
    assert info["nonfinite"] == 0
    assert_finite(outputs, gradients)
    assert (gradients["colors"][:, :, 4:] == 0).all()


@pytest.mark.parametrize("value", [1e15, 1e30])
def test_overflowing_projections_are_dropped(value: float):
    scene = make_scene("normal", count=20)
    scene["scales"][0, 3] = value
    outputs, info, gradients = render(scene)
    assert_finite(outputs, gradients)
    assert info["nonfinite"] in (0, 2)


def test_bad_cameras_give_the_background():
    scene = make_scene("normal", count=20)
    cameras = make_cameras(width=WIDTH, height=HEIGHT)
    cameras["viewmats"][0, 0, 2, 3] = math.nan
    backgrounds = make_backgrounds()
    colors, alphas, _, info = rasterize_cpu(**scene, **cameras, backgrounds=backgrounds, width=WIDTH, height=HEIGHT)
    assert info["nonfinite"] == 20
    assert (alphas[0, 0] == 0).all()
    assert (colors[0, 0] == backgrounds[0, 0]).all()


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("sh_degree", [None, 2])
def test_few_splats(count: int, sh_degree: int | None):
    scene = make_scene("normal", batch=2, count=count, sh_degree=sh_degree)
    scene["means"] = 0.01 * scene["means"]
    outputs, info, gradients = render(scene, sh_degree=sh_degree)
    assert_finite(outputs, gradients)
    assert (info["instances"] == 0) == (count == 0)
    if count == 0:
        assert torch.equal(outputs[0][:, :, 5, 5], make_backgrounds(batch=2))
        assert (outputs[1] == 0).all()
        assert (outputs[2] == 0).all()
        assert (gradients["viewmats"] == 0).all()


def test_no_background_is_black():
    scene, cameras = make_scene("normal", count=30), make_cameras(width=WIDTH, height=HEIGHT)
    plain = rasterize_cpu(**scene, **cameras, width=WIDTH, height=HEIGHT)
    black = rasterize_cpu(**scene, **cameras, backgrounds=torch.zeros(1, 2, 3), width=WIDTH, height=HEIGHT)
    assert torch.equal(plain[0], black[0])


def test_strided_inputs_and_gradients():
    scene, cameras = make_scene("normal", count=50), make_cameras(width=WIDTH, height=HEIGHT)
    strided = {name: tensor.transpose(0, 1).contiguous().transpose(0, 1) for name, tensor in scene.items()}
    strided = {name: torch.stack([tensor, tensor + 1], -1)[..., 0] for name, tensor in strided.items()}
    assert not strided["means"].is_contiguous()
    results = []
    for arguments in (scene, strided):
        means = arguments["means"].detach().requires_grad_()
        colors, *_ = rasterize_cpu(**{**arguments, "means": means}, **cameras, width=WIDTH, height=HEIGHT)
        channels_first = colors.movedim(-1, -3)
        loss = (channels_first * torch.arange(3.0)[:, None, None]).sum()
        results.append((colors, *torch.autograd.grad(loss, means)))
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_only_wanted_gradients_are_computed():
    scene, cameras = make_scene("normal", count=50), make_cameras(width=WIDTH, height=HEIGHT)
    scene["opacities"].requires_grad_()
    colors, *_ = rasterize_cpu(**scene, **cameras, width=WIDTH, height=HEIGHT)
    colors.sum().backward()
    assert scene["opacities"].grad is not None
    assert scene["means"].grad is None


def test_other_types_are_refused():
    scene, cameras = make_scene("normal", count=5), make_cameras(width=WIDTH, height=HEIGHT)
    with pytest.raises(ValueError, match="float32"):
        rasterize_cpu(**{**scene, "means": scene["means"].double()}, **cameras, width=WIDTH, height=HEIGHT)


def test_too_large_images_are_refused():
    scene, cameras = make_scene("normal", count=5), make_cameras(width=WIDTH, height=HEIGHT)
    with pytest.raises(ValueError, match="65536"):
        rasterize_cpu(**scene, **cameras, width=65537, height=1)


def test_memory_is_handed_on_and_bounded(monkeypatch: pytest.MonkeyPatch):
    pool = MemoryPool()
    block = pool.take(10_000)
    pool.give(block)
    assert pool.take(9_000) is block
    monkeypatch.setattr(autograd, "KEPT_BYTES", 50_000)
    for _ in range(20):
        pool.give(torch.zeros(10_000, dtype=torch.uint8))
    assert len(pool.free) == 5


def test_memory_returns_when_the_graph_goes():
    autograd.pool.clear()
    scene, cameras = make_scene("normal", count=50), make_cameras(width=WIDTH, height=HEIGHT)
    scene["means"].requires_grad_()
    outputs = rasterize_cpu(**scene, **cameras, width=WIDTH, height=HEIGHT)
    assert not autograd.pool.free
    del outputs
    assert len(autograd.pool.free) == 2
