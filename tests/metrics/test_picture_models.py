"""timm models with weight files made here, and the filter that asks them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cgsgan.cameras import orbit
from cgsgan.cli import main
from cgsgan.metrics.picture_models import open_picture_model
from cgsgan.metrics.weight_files import ExtractorError

SMALL = "test_vit"
"""timm's smallest vision transformer."""


@pytest.fixture(scope="module")
def timm(torchvision_imports: None):
    return pytest.importorskip("timm")


def weight_file(timm, folder: Path, classes: int, name: str = SMALL) -> Path:
    torch.manual_seed(4)
    network = timm.create_model(name, pretrained=False, num_classes=classes)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)  # timm's classifiers start at 0
    path = folder / f"{name}-{classes}.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.mark.parametrize("name", [SMALL, "test_resnet"])
@pytest.mark.parametrize("classes", [0, 2, 1000])
def test_features_and_classes_are_those_of_the_file(timm, tmp_path: Path, name: str, classes: int) -> None:
    path = weight_file(timm, tmp_path, classes, name)
    model = open_picture_model(name, path)
    expected = model.model
    assert model.classes == classes
    pictures = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    features, probabilities = model(pictures)
    network = timm.create_model(name, pretrained=False, num_classes=classes).eval()
    from safetensors.torch import load_file

    network.load_state_dict(load_file(path))
    resized = torch.nn.functional.interpolate(pictures, (expected.size,) * 2, mode="bicubic", antialias=True).clamp(
        0, 1
    )
    with torch.no_grad():
        logits = network((resized - expected.mean) / expected.std)
    assert features.shape[0] == 3
    assert features.ndim == 2
    assert features.std(dim=0).max() > 0
    if classes:
        assert probabilities is not None
        torch.testing.assert_close(probabilities, logits.softmax(dim=1))
        assert (probabilities - 1 / classes).abs().max() > 1e-4
    else:
        assert probabilities is None
        torch.testing.assert_close(features, logits)  # without a classifier, timm's output is the features


def test_missing_things_are_one_clear_line(timm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"x")
    for model, weights, message in (
        ("test_vit", None, "get its safetensors file from the hub"),
        ("no_such_net", None, "timm has no 'no_such_net'"),
        (SMALL, tmp_path / "none.safetensors", "no such file"),
        (SMALL, damaged, "not a readable"),
        ("test_resnet", weight_file(timm, tmp_path, 0), "do not fit test_resnet"),
    ):
        with pytest.raises(ExtractorError, match=r"^[^\n]*$") as caught:
            open_picture_model(model, weights)
        assert message in str(caught.value)


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 similar discs, and one checkerboard in the same place."""
    monkeypatch.setenv("CGSGAN_CACHE", str(tmp_path / "cache"))
    labels = orbit(torch.zeros(41), torch.zeros(41)).to_labels().tolist()
    place = (torch.arange(48) + 0.5) / 48 - 0.5
    with zipfile.ZipFile(tmp_path / "heads.zip", "w") as archive:
        for i in range(len(labels)):
            alpha = (place[None].square() + place[:, None].square() < 0.09 + 0.0004 * (i % 5)).float()
            colour = torch.tensor([0.8, 0.6, 0.5])[:, None, None].expand(3, 48, 48) * (0.9 + 0.002 * i)
            if i == 17:
                checks = (torch.arange(48)[None] // 4 + torch.arange(48)[:, None] // 4) % 2
                colour = torch.stack([checks, 1 - checks, checks]).float()
            pixels = (torch.cat([colour, alpha[None]]) * 255).round().byte().permute(1, 2, 0).numpy()
            with archive.open(f"{i:02d}.png", "w") as file:
                Image.fromarray(pixels).save(file, "PNG")
        archive.writestr("dataset.json", json.dumps({"labels": [[f"{i:02d}.png", x] for i, x in enumerate(labels)]}))
    return tmp_path / "heads.zip"


@pytest.mark.parametrize("outliers", ["mahalanobis", "neighbours"])
def test_the_filter_finds_what_does_not_belong(timm, heads: Path, tmp_path: Path, outliers: str, capsys) -> None:
    weights = weight_file(timm, tmp_path, 2)
    files = {name: tmp_path / name for name in ("list.json", "report.jsonl", "pictures.png", "sheet.png")}
    command = ["data", "filter", str(heads), "--out", str(files["list.json"]), "--model", SMALL]
    command += ["--weights", str(weights), "--outliers", outliers, "--drop-outliers", "0.03"]
    more = ["--report", str(files["report.jsonl"]), "--pictures", str(files["pictures.png"])]
    assert main([*command, *more, "--sheet", str(files["sheet.png"]), "--resolution", "48"]) == 0
    assert "unlike the rest: 1" in capsys.readouterr().out
    kept = json.loads(files["list.json"].read_text())
    assert kept == [f"{i:02d}.png" for i in range(41) if i != 17]
    lines = [json.loads(line) for line in files["report.jsonl"].read_text().splitlines()]
    assert [line["name"] for line in lines if line["thrown out"]] == ["17.png"]
    assert max(lines, key=lambda line: line["outlier"])["name"] == "17.png"
    assert Image.open(files["pictures.png"]).size[0] == 12 * 48
    assert Image.open(files["sheet.png"]).size[0] > 300
    assert main([*command, *more]) == 2
    assert "--overwrite" in capsys.readouterr().err
    by = ["--by", f"{files['report.jsonl']}:outlier", "--index-list", str(files["list.json"])]
    assert main(["data", "rebalance", str(heads), "--out", str(tmp_path / "again.json"), *by]) == 0


def test_a_rejected_class(timm, heads: Path, tmp_path: Path, capsys) -> None:
    weights = weight_file(timm, tmp_path, 2)
    command = ["data", "filter", str(heads), "--model", SMALL, "--weights", str(weights), "--drop-outliers", "0"]
    command += ["--resolution", "48"]
    report = tmp_path / "report.jsonl"
    assert main([*command, "--out", str(tmp_path / "a.json"), "--reject-class", "1", "--report", str(report),
                 "--max-probability", "1"]) == 0  # fmt: skip
    found = [json.loads(line)["probability"] for line in report.read_text().splitlines()]
    gaps = torch.tensor(sorted(found)).diff()
    limit = (sorted(found)[int(gaps.argmax())] + sorted(found)[int(gaps.argmax()) + 1]) / 2
    rest = ["--out", str(tmp_path / "b.json"), "--reject-class", "1", "--max-probability", str(limit)]
    assert main([*command, *rest]) == 0
    kept = json.loads((tmp_path / "b.json").read_text())
    assert kept == [f"{i:02d}.png" for i, chance in enumerate(found) if chance <= limit]
    assert 0 < len(kept) < 41
    assert main([*command, "--out", str(tmp_path / "c.json"), "--reject-class", "2"]) == 2
    assert "classes 0 to 1, got 2" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()
