"""Extractors with weight files made here: no pretrained weights are needed to prove the plumbing."""

from __future__ import annotations

import json
import pickle
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cgsgan.cli import main
from cgsgan.config import config_to_dict
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic
from cgsgan.metrics import random_features
from cgsgan.metrics.extractors import FeatureExtractor, open_extractor
from cgsgan.metrics.weight_files import ExtractorError
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.training.generator_file import GeneratorFile, write_generator
from tests.tiny_experiment import randomize, tiny_config

SMALL = "test_vit"
"""timm's smallest vision transformer."""


def pictures(count: int = 3, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def timm(torchvision_imports: None):
    return pytest.importorskip("timm")


@pytest.fixture(scope="module")
def small_file(timm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the form of a hub file: at the model's own size, with a classifier."""
    torch.manual_seed(4)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(SMALL, pretrained=False).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inception_file(torchvision_imports: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the right names and shapes, found by asking the network what it misses."""
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    shapes: dict[str, torch.Size] = {}

    def keep(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
        shapes.update({name: value.shape for name, value in torch.nn.Module.state_dict(module).items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", keep)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    g = torch.Generator().manual_seed(1)
    weights = {}
    for name, shape in shapes.items():
        fan = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 1
        draw = torch.randn(shape, generator=g) * (2 / fan) ** 0.5
        weights[name] = {"weight": draw if fan > 1 else torch.ones(shape), "running_var": torch.ones(shape)}.get(
            name.rsplit(".", 1)[-1], torch.zeros(shape)
        )
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(weights, path)
    return path


def test_random():
    extractor = open_extractor("random")
    assert isinstance(extractor, FeatureExtractor)
    assert torch.equal(extractor(pictures()), random_features(pictures()))
    assert torch.equal(extractor(pictures() * 3), random_features((pictures() * 3).clamp(0, 1)))
    assert extractor.identity == "random-4-192"


def test_timm_from_a_file(timm, small_file: Path):
    extractor = open_extractor("dinov2", model=SMALL, weights=small_file)
    found = extractor(pictures())
    network = timm.create_model(SMALL, pretrained=False)
    network.load_state_dict(load(small_file))
    network.eval()
    network.reset_classifier(0)
    settings = timm.data.resolve_model_data_config(network)
    side = settings["input_size"][-1]
    rounded = (pictures() * 255).round() / 255
    resized = torch.nn.functional.interpolate(rounded, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(settings[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        expected = network((resized - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.std() > 0.01
    assert extractor.identity.startswith(f"{SMALL}-{side}-")


def test_identity_by_the_command(timm, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Any timm model that knows faces would do; here it is a small one that knows nothing."""
    monkeypatch.setenv("CGSGAN_CACHE", str(tmp_path / "cache"))
    config = tiny_config()
    torch.manual_seed(0)
    network = GaussianGenerator(config.generator)
    randomize(network)
    checkpoint, heads, out = tmp_path / "generator.safetensors", tmp_path / "heads.zip", tmp_path / "figures.json"
    stored = GeneratorFile(config=config_to_dict(config), images_seen=9000, weights=network.state_dict())
    write_generator(checkpoint, stored)
    make_synthetic(SyntheticConfig(count=24, resolution=32), heads)
    options = ["--data", str(heads), "--count", "12", "--repeats", "1", "--metrics", "similarity", "--out", str(out)]
    options += ["--identity-model", SMALL, "--identity-weights", str(small_file)]
    assert main(["evaluate", str(checkpoint), *options]) == 0
    found = json.loads(out.read_text())
    assert found["identity_features"].startswith(SMALL)
    figures = {name: figure["mean"] for name, figure in found["figures"].items()}
    assert set(figures) == {f"{kind}_{name}" for kind in ("similarity", "identity")
                            for name in ("same", "other", "told_apart")}  # fmt: skip
    assert figures["identity_same"] != figures["similarity_same"]
    assert figures["identity_same"] > figures["identity_other"]


def load(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_identity_follows_the_weights(small_file: Path, tmp_path: Path):
    state = load(small_file)
    other, copy = tmp_path / "other.safetensors", tmp_path / "copy.safetensors"
    save_file(state, copy)
    save_file(state | {"cls_token": state["cls_token"] + 1}, other)
    first, second, third = (
        open_extractor("dinov2", model=SMALL, weights=p).identity for p in (small_file, copy, other)
    )
    assert first == second != third


def test_dinov2_files_are_resized_to_224(timm, tmp_path: Path):
    """Hub files of DINOv2 hold positions for 518 px."""
    name = "vit_small_patch14_dinov2.lvd142m"
    network = timm.create_model(name, pretrained=False)
    assert network.pos_embed.shape[1] == 1 + 37**2
    path = tmp_path / "dinov2.safetensors"
    save_file(network.state_dict(), path)
    extractor = open_extractor("dinov2", model=name, weights=path)
    assert extractor.network.pos_embed.shape[1] == 1 + 16**2  # type: ignore[attr-defined]
    assert extractor(pictures(2)).shape == (2, 384)


def test_inception_from_a_file(inception_file: Path):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    extractor = open_extractor("inception", weights=inception_file)
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    expected = theirs((pictures() * 255).round().to(torch.uint8))[0]
    found = extractor(pictures())
    assert found.shape == (3, 2048)
    assert found.std() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["dinov2", "inception"])
def test_files_of_something_else_are_refused(name: str, small_file: Path, inception_file: Path, tmp_path: Path):
    wrong = {"dinov2": inception_file, "inception": small_file}[name]
    with pytest.raises(ExtractorError, match="do not fit"):
        open_extractor(name, model=SMALL, weights=wrong)
    state = load(small_file)
    save_file({k: v for k, v in state.items() if k != "cls_token"}, tmp_path / "part.safetensors")
    with pytest.raises(ExtractorError, match="1 missing, 0 unknown, such as cls_token"):
        open_extractor("dinov2", model=SMALL, weights=tmp_path / "part.safetensors")


class Code:
    def __reduce__(self):
        return (print, ("this ran",))


def test_files_with_code_are_refused_and_not_run(torchvision_imports, tmp_path: Path, capsys):
    pytest.importorskip("torch_fidelity")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Code()))
    with pytest.raises(ExtractorError, match=r"evil\.pth: not a readable"):
        open_extractor("inception", weights=tmp_path / "evil.pth")
    assert "this ran" not in capsys.readouterr().out


def test_no_network(timm, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch_fidelity")

    def offline(*_: object, **__: object):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(ExtractorError, match=r"no route to host.*weights-inception.*--weights"):
        open_extractor("inception")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExtractorError, match=r"vit_base_patch14_dinov2.*cannot be had.*--weights"):
        open_extractor("dinov2")


@pytest.mark.parametrize(("name", "package"), [("inception", "torch_fidelity"), ("dinov2", "timm")])
def test_no_package(name: str, package: str, monkeypatch: pytest.MonkeyPatch):
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtractorError, match=rf"{package} cannot be imported.*pip install"):
        open_extractor(name)


def test_mistakes(tmp_path: Path):
    with pytest.raises(ExtractorError, match="expected random, inception, dinov2; got 'vgg'"):
        open_extractor("vgg")
    with pytest.raises(ExtractorError, match="no such file"):
        open_extractor("inception", weights=tmp_path / "none.pth")
    with pytest.raises(ExtractorError, match="random features have none"):
        open_extractor("random", weights=tmp_path / "none.pth")
