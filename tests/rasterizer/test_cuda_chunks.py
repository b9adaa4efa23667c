"""How a call is cut into chunks, and what is sorted between the stages."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rasterizer import cuda_chunks
from rasterizer.backend import BackendError
from rasterizer.cuda_chunks import EMULATION_BYTES, MAX_BATCH, MAX_INSTANCES, Chunk, Costs, read_budget
from rasterizer.cuda_sorting import choose_key_type, order_by_depth, order_by_tile, store_key


def list_images(chunk: Chunk) -> list[tuple[int, int]]:
    return [
        (scene, view)
        for scene in range(chunk.scene, chunk.scene + chunk.scenes)
        for view in range(chunk.view, chunk.view + chunk.views)
    ]


@given(
    scene=st.integers(0, 3),
    scenes=st.integers(1, 9),
    view=st.integers(0, 3),
    views=st.integers(1, 9),
    images=st.integers(1, 100),
)
def test_pieces_are_the_images_in_order(scene: int, scenes: int, view: int, views: int, images: int):
    whole = Chunk(scene, scenes, view, views)
    pieces = whole.cut(images)
    assert [image for piece in pieces for image in list_images(piece)] == list_images(whole)
    for piece in pieces:
        assert 1 <= piece.images <= images
        # All views of its scenes, or some of one scene: consecutive in memory.
        assert piece.views == views or piece.scenes == 1
    tensor = torch.arange((scene + scenes) * (view + views)).reshape(scene + scenes, view + views)
    taken = torch.cat([piece.take_views(tensor).flatten() for piece in pieces])
    assert torch.equal(taken, whole.take_views(tensor).flatten())


@given(
    gaussians=st.integers(0, 1 << 24),
    tiles=st.integers(1, 1 << 24),
    record=st.integers(0, 39),
    budget=st.integers(1, 1 << 36),
    scenes=st.integers(1, 100),
    views=st.integers(1, 100),
    per_image=st.integers(0, 1 << 33),
)
def test_counted_chunks_fit_or_raise(
    gaussians: int, tiles: int, record: int, budget: int, scenes: int, views: int, per_image: int
):
    costs = Costs(gaussians=gaussians, tiles=tiles, record=record, budget=budget)
    whole = Chunk(0, scenes, 0, views)
    chunk = costs.cut_call(whole)[0]
    assert chunk.images * tiles <= cuda_chunks.MAX_TILES
    for _ in range(20):
        instances = chunk.images * per_image
        fits = costs.count_bytes(chunk.images, instances) <= budget and instances <= MAX_INSTANCES
        if chunk.images == 1 and not fits:
            with pytest.raises(BackendError, match="view 0 of scene 0"):
                costs.cut_chunk(chunk, instances)
            return
        pieces = costs.cut_chunk(chunk, instances)
        if pieces == [chunk]:
            assert fits
            return
        assert pieces[0].images < chunk.images
        chunk = pieces[0]
    pytest.fail("never ends")


def test_many_scenes_are_cut_for_the_grid():
    costs = Costs(gaussians=1, tiles=1, record=0, budget=1 << 40)
    assert [chunk.scenes for chunk in costs.cut_call(Chunk(0, 100_000, 0, 2))] == [MAX_BATCH, 100_000 - MAX_BATCH]


def test_budget_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RASTERIZER_CUDA_BYTES", raising=False)
    assert read_budget(torch.device("cpu")) == EMULATION_BYTES
    monkeypatch.setenv("RASTERIZER_CUDA_BYTES", "123456")
    assert read_budget(torch.device("cpu")) == 123456
    for text in ("0", "-4", "1e9", "2 GB"):
        monkeypatch.setenv("RASTERIZER_CUDA_BYTES", text)
        with pytest.raises(BackendError, match=f"^RASTERIZER_CUDA_BYTES: expected a positive number.*{text}"):
            read_budget(torch.device("cpu"))


def test_equal_depths_stay_in_order():
    depths = torch.tensor([[2.0, 1.0, torch.inf, 1.0, 2.0, 0.5, torch.inf]]).repeat(2, 50)
    depths[1] = 1.0
    order = order_by_depth(depths)
    expected = sorted(range(350), key=lambda i: (depths[0, i].item(), i))
    assert order.tolist() == [expected, list(range(350))]


@pytest.mark.parametrize(("largest", "dtype"), [(5, torch.int16), (65535, torch.int16), (65536, torch.int32)])
def test_equal_tiles_stay_in_order(largest: int, dtype: torch.dtype):
    assert choose_key_type(largest) == dtype
    keys = torch.tensor([store_key(key, dtype) for key in torch.randint(0, 7, (1000,)).tolist()], dtype=dtype)
    keys[::10] = store_key(largest, dtype)
    sorted_keys, slots = order_by_tile(keys)
    assert sorted_keys.dtype == dtype
    assert slots.tolist() == sorted(range(1000), key=lambda i: (keys[i].item(), i))
    assert torch.equal(sorted_keys, keys[slots])
