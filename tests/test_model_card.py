"""The model card of a tiny generator, made by the command that makes the real one."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from cgsgan.cameras import orbit
from cgsgan.config import config_to_dict
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic
from cgsgan.metrics.extractors import open_extractor
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.training.generator_file import GeneratorFile, write_generator
from tests.tiny_experiment import randomize, tiny_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "heads.zip"
    make_synthetic(SyntheticConfig(count=48, resolution=64), path)
    return path


@pytest.fixture(scope="module")
def persons(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five persons from two sides, with depth maps: discs."""
    labels = orbit(torch.tensor([0.0, 0.4]), torch.zeros(2)).to_labels().tolist()
    place = np.hypot(*np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5))
    entries, depths = [], np.zeros((5, 2, 64, 64), np.float16)
    path = tmp_path_factory.mktemp("persons") / "persons.zip"
    with zipfile.ZipFile(path, "w") as file:
        for person in range(5):
            cover = place < 16 + person
            depths[person] = np.where(cover, 2.5 + 0.01 * person, 0)
            for view, label in enumerate(labels):
                pixels = np.dstack([np.full((64, 64, 3), 40 * person + 30), 255 * cover]).astype(np.uint8)
                picture = io.BytesIO()
                Image.fromarray(pixels).save(picture, "PNG")
                entries.append([f"{person:05d}/view{view}.png", label])
                file.writestr(entries[-1][0], picture.getvalue())
        file.writestr("dataset.json", json.dumps({"labels": entries}))
        packed = io.BytesIO()
        np.savez(packed, depth=depths)
        file.writestr("depth_landmarks.npz", packed.getvalue())
    return path


@pytest.fixture(scope="module")
def scripts() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("card_neighbors")


@pytest.mark.slow
def test_the_whole_card(heads: Path, persons: Path, tmp_path: Path):
    config = tiny_config()
    torch.manual_seed(0)
    network = GaussianGenerator(config.generator)
    randomize(network)
    checkpoint, remarks = tmp_path / "generator.safetensors", tmp_path / "remarks.txt"
    stored = GeneratorFile(
        config=config_to_dict(config), images_seen=9000, weights=network.state_dict(),
        provenance={"data": "drawn heads", "licence": "none", "command": "python train.py tiny.yaml"},
    )  # fmt: skip
    write_generator(checkpoint, stored)
    remarks.write_text("Blobs.\n")
    options = ["--data", str(heads), "--eval", str(persons), "--count", "40", "--repeats", "1"]
    places = ["--out", str(tmp_path / "card"), "--json", str(tmp_path / "card.json"), "--remarks", str(remarks)]
    done = subprocess.run(
        [sys.executable, "benchmarks/model_card.py", str(checkpoint), *options, *places], check=False, cwd=ROOT,
        text=True, capture_output=True, timeout=300,
        env={**os.environ, "CGSGAN_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    card = (tmp_path / "card" / "README.md").read_text()
    pictures = set(re.findall(r"\]\((\w+\.\w+)\)", card))
    assert {path.name for path in (tmp_path / "card").iterdir()} == pictures | {"README.md"}
    assert len(pictures) == 6
    for words in ("drawn heads", "python train.py tiny.yaml", "on 9,000 pictures", "Blobs.", "random-4-192",
                  "--count 40 --repeats 1", "yaw that a small network sees", "no photograph"):  # fmt: skip
        assert words in card
    assert "{" not in card.replace("```", "")
    found = json.loads((tmp_path / "card.json").read_text())
    assert f"| precision | {found['figures']['precision']['mean']:.3g} |" in card
    assert found["bounds"]["grey"]["fid"] > found["bounds"]["other real pictures"]["fid"]


def test_copies_of_training_pictures_are_found(heads: Path, scripts: ModuleType):
    training = open_dataset(DataConfig(path=str(heads), resolution=64, x_flip=True))
    copied = torch.tensor([3, 20, 48 + 7])  # the last one is a mirror image
    copies = training.read(copied).premultiplied
    noise = torch.Generator().manual_seed(0)
    strangers = copies.roll(16, dims=2) * torch.rand(3, 1, 64, 64, generator=noise)
    found = scripts.compare_with_training(copies, strangers, training, open_extractor("random"))
    for kind in ("pixels", "features"):
        assert found.samples[kind].index[:, 0].tolist() == copied.tolist()
        assert float(found.samples[kind].distances[:, 0].max()) < 1e-3
        assert bool((found.samples[kind].distances.diff(dim=1) >= 0).all())
        assert found.figures()[f"{kind}_share_below"] == 1
        assert found.figures()[f"{kind}_held_out"] > 10 * found.figures()[f"{kind}_samples"]
