"""Checkpoints: atomic, complete, readable without trust."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cgsgan.training.checkpoint import (
    TrainingState,
    find_generator,
    list_checkpoints,
    read_training_state,
    save_checkpoint,
)
from cgsgan.training.generator_file import CheckpointError, GeneratorFile, read_generator, write_generator
from cgsgan.training.state_tensors import flatten_optimizer, restore_optimizer


def generator_file(seen: int = 1500) -> GeneratorFile:
    return GeneratorFile(config={"name": "x"}, images_seen=seen, weights={"a": torch.arange(6.0).view(2, 3).T})


STATE = TrainingState(tensors={"generator.a": torch.ones(3)}, progress={"step": 3, "images_seen": 1500})


def test_round_trip(tmp_path: Path):
    folder = save_checkpoint(tmp_path, generator_file(), STATE)
    assert folder.name == "kimg-00001.500"
    for path in (folder, folder / "generator.safetensors", tmp_path):
        stored = read_generator(find_generator(path))
        assert stored.config == {"name": "x"}
        assert stored.images_seen == 1500
        assert torch.equal(stored.weights["a"], generator_file().weights["a"])
    state = read_training_state(folder)
    assert state.progress == STATE.progress
    assert torch.equal(state.tensors["generator.a"], torch.ones(3))


def test_old_ones_go_and_a_torn_one_is_not_seen(tmp_path: Path):
    for seen in (1000, 2000, 10_000):
        save_checkpoint(tmp_path, generator_file(seen), STATE, keep=2)
    torn = tmp_path / ".kimg-00099.000.partial"
    torn.mkdir()
    assert [p.name for p in list_checkpoints(tmp_path)] == ["kimg-00002.000", "kimg-00010.000"]
    assert find_generator(tmp_path).parent.name == "kimg-00010.000"


def test_refusals_are_one_clear_line(tmp_path: Path):
    def refuse(path: Path, message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            read_generator(find_generator(path))
        assert "\n" not in str(caught.value)

    refuse(tmp_path / "none", "no such file or folder")
    refuse(tmp_path, "holds no checkpoint")
    (tmp_path / "text.safetensors").write_text("hello")
    refuse(tmp_path / "text.safetensors", "not a readable safetensors file")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    refuse(tmp_path / "other.safetensors", "expected a cgsgan-generator file, found no format name")
    newer = {"format": "cgsgan-generator", "version": "99", "config": "{}", "images_seen": "0"}
    save_file({"a": torch.ones(1)}, tmp_path / "newer.safetensors", metadata=newer)
    refuse(tmp_path / "newer.safetensors", "newer than this cgsgan reads")
    save_file({"a": torch.ones(1)}, tmp_path / "bad.safetensors", metadata={**newer, "version": "1", "config": "{"})
    refuse(tmp_path / "bad.safetensors", "damaged header")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Evil()}))
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_generator(path)
    assert not marker.exists()


@given(cut=st.integers(0, 2000), flip=st.integers(0, 2000))
@settings(deadline=None, max_examples=60)
def test_damage_never_crashes(tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int):
    path = tmp_path_factory.mktemp("damage") / "generator.safetensors"
    write_generator(path, generator_file())
    data = bytearray(path.read_bytes())
    data[flip % len(data)] ^= 0xFF
    path.write_bytes(bytes(data[: max(0, len(data) - cut % 50)]))
    with contextlib.suppress(CheckpointError):
        read_generator(path)


@pytest.mark.parametrize(
    ("key", "value"), [("config", "[1]"), ("config", "null"), ("version", "x"), ("images_seen", "")]
)
def test_headers_with_other_things_in_them_are_refused(tmp_path: Path, key: str, value: str):
    header = {"format": "cgsgan-generator", "version": "1", "config": "{}", "images_seen": "0"}
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", metadata={**header, key: value})
    with pytest.raises(CheckpointError, match="damaged header"):
        read_generator(tmp_path / "x.safetensors")


def test_optimizers_round_trip():
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]

    def make() -> torch.optim.Adam:
        return torch.optim.Adam([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.2}])

    first, second = make(), make()
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        first.step()
    restore_optimizer("o", second, flatten_optimizer("o", first))
    for weight in weights:
        for name, value in first.state[weight].items():
            assert torch.equal(second.state[weight][name], value)
    assert [group["lr"] for group in second.param_groups] == [0.1, 0.2]


def test_a_damaged_state_is_refused(tmp_path: Path):
    folder = save_checkpoint(tmp_path, generator_file(), STATE)
    (folder / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot resume"):
        read_training_state(folder)


@pytest.mark.skipif(os.name != "posix", reason="rights of files are POSIX's")
def test_files_are_readable_by_whom_the_umask_says(tmp_path: Path):
    before = os.umask(0o022)
    try:
        folder = save_checkpoint(tmp_path, generator_file(), STATE)
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o644"}


def test_the_generator_that_comes_along_has_a_name_that_a_folder_may_take(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_generator("shipped") == find_generator(None)
    (tmp_path / "shipped").mkdir()
    with pytest.raises(CheckpointError, match="shipped: holds no checkpoint"):
        find_generator("shipped")
