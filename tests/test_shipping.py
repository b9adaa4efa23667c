"""A generator file to give away, and the one that comes with the package."""

from __future__ import annotations

import importlib.util
import json
import struct
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

import cgsgan.training.checkpoint
from cgsgan import load_generator
from cgsgan.cli import main
from cgsgan.config import config_to_dict
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.training.checkpoint import SHIPPED_FILE
from cgsgan.training.generator_file import CheckpointError, GeneratorFile, read_generator, write_generator
from cgsgan.training.shipping import make_shippable, without_places
from tests.tiny_experiment import randomize, tiny_config

ROOT = Path(__file__).parents[1]
SOURCE = {"data": "drawn heads", "licence": "MIT", "command": "python train.py tiny.yaml"}


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_file() -> GeneratorFile:
    config = tiny_config()
    config = replace(config, data=replace(config.data, path="/home/someone/sets/heads.zip"))
    torch.manual_seed(0)
    network = GaussianGenerator(config.generator)
    randomize(network)
    return GeneratorFile(config=config_to_dict(config), images_seen=9000, weights=network.state_dict())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "generator.safetensors"
    path.parent.mkdir()
    write_generator(path, tiny_file())
    return path


@pytest.fixture
def shipped(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny one in the place of the package's own."""
    path = tmp_path / "assets" / "generator.safetensors"
    load_script("ship_checkpoint").ship(run, path, SOURCE)
    monkeypatch.setattr(cgsgan.training.checkpoint, "SHIPPED_FILE", path)
    return path


def test_half_precision_in_the_file_and_single_in_memory(shipped: Path, run: Path):
    stored, full = load_file(shipped), load_file(run)
    assert {v.dtype for v in stored.values()} == {torch.float16}
    assert shipped.stat().st_size < 0.7 * run.stat().st_size
    loaded = read_generator(shipped)
    for name, value in loaded.weights.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, full[name].half().float())
    assert loaded.images_seen == 9000
    z = torch.randn(2, 8)
    a, b = (load_generator(path)(z).gaussians.means for path in (shipped, run))
    assert a.dtype == torch.float32
    assert 0 < (a - b).abs().max() < 2e-3  # observed 2.6e-4
    torch.testing.assert_close(load_generator()(z).gaussians.means, a, rtol=0, atol=0)


def test_the_file_names_its_source_and_no_places(shipped: Path):
    header_size = struct.unpack("<Q", shipped.read_bytes()[:8])[0]
    header = json.loads(shipped.read_bytes()[8 : 8 + header_size])["__metadata__"]
    provenance = json.loads(header["provenance"])
    assert provenance.items() >= SOURCE.items()
    assert "of 255 levels" in provenance["half precision"]
    assert json.loads(header["config"])["data"]["path"] == "heads.zip"
    assert "someone" not in str(header)
    assert load_generator(shipped).provenance == provenance


def test_places():
    plain = {"a": ["/x/y.zip", "C:\\sets\\z.zip", "../up/w.json"], "b": {"c": "no", "d": None, "e": 0.5}}
    assert without_places(plain) == {"a": ["y.zip", "z.zip", "w.json"], "b": {"c": "no", "d": None, "e": 0.5}}


def test_difference_is_zero_for_equal_weights_and_counts_levels(run: Path):
    script = load_script("ship_checkpoint")
    generator, other = load_generator(run), load_generator(run)
    assert script.difference(generator, other).startswith("mean 0.000, largest 0.0 of")
    with torch.no_grad():
        other.network.load_state_dict({k: v + 0.01 for k, v in other.network.state_dict().items()})
    assert not script.difference(generator, other).startswith("mean 0.000")


def test_what_cannot_be_shipped_is_refused(run: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="must name its licence, command"):
        make_shippable(tiny_file(), {"data": "heads", "command": " "})
    large = tiny_file()
    name = next(iter(large.weights))
    large.weights[name].view(-1)[0] = 1e6
    with pytest.raises(CheckpointError, match=f"{name}: holds a value that is no finite half-precision number: 1e"):
        make_shippable(large, SOURCE)
    script = load_script("ship_checkpoint")
    script.MOST_BYTES = 1000
    with pytest.raises(ValueError, match=r"at most 0\.001 are"):
        script.ship(run, tmp_path / "out" / "generator.safetensors", SOURCE)
    assert list((tmp_path / "out").iterdir()) == []


def test_rendering_without_arguments(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["render", "--frames", "3", "--size", "32"]) == 0
    assert {p.name for p in (tmp_path / "renders").iterdir()} == {"grid.png", "turntable.webp"}
    told = capsys.readouterr().out
    assert "data: drawn heads" in told
    assert "licence: MIT" in told
    assert told.splitlines()[-1].endswith("for yours: python render.py RUN")
    assert main(["render", "--ply", "--seeds", "3", "--out", "elsewhere"]) == 0
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["seed-0003.ply"]


def test_info(shipped: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.items() >= SOURCE.items()
    assert lines["file"] == str(shipped)


def test_without_a_shipped_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(cgsgan.training.checkpoint, "SHIPPED_FILE", tmp_path / "generator.safetensors")
    monkeypatch.chdir(tmp_path)
    for command in ("render", "info"):
        assert main([command]) == 2
        error = capsys.readouterr().err
        assert len(error.strip().splitlines()) == 1
        assert "no generator comes with this copy of cgsgan" in error
        assert "train.py" in error
    assert not (tmp_path / "renders").exists()
    with pytest.raises(CheckpointError, match="no generator comes"):
        load_generator()


@pytest.mark.skipif(not SHIPPED_FILE.exists(), reason="no generator in this copy")
def test_the_shipped_generator():
    assert SHIPPED_FILE.stat().st_size <= 15_000_000
    generator = load_generator()
    assert "ICT" in generator.provenance["data"]
    assert "MIT" in generator.provenance["licence"]
    assert generator.provenance["command"].startswith("python train.py")
    scene = generator(torch.randn(2, generator.z_dim)).gaussians
    assert all(bool(t.isfinite().all()) for t in scene.tensors())
    assert (SHIPPED_FILE.parent / "README.md").is_file()
