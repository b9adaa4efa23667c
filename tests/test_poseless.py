"""A folder of pictures without a single camera: trained on, scored, resumed, measured; and what says that it cannot."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cgsgan import experiment
from cgsgan.cli import main
from cgsgan.config import ExperimentConfig
from cgsgan.data.errors import DatasetError
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic
from cgsgan.generators import load_generator
from cgsgan.models.discriminator import Discriminator
from cgsgan.training.log import read_log
from cgsgan.training.poses import PoseConfig
from cgsgan.training.run_folder import RunFolder
from tests.tiny_experiment import tiny_config

COUNT = 24


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of procedural heads, without their cameras."""
    folder = tmp_path_factory.mktemp("pictures")
    made = make_synthetic(SyntheticConfig(count=COUNT, resolution=32), folder / "heads.zip")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(folder / "set", [name for name in archive.namelist() if name != "dataset.json"])
    return folder / "set"


def poseless(pictures: Path, **training: object) -> ExperimentConfig:
    config = tiny_config(kimg=0.024, checkpoint_kimg=0.016, sample_kimg=1.0, **training)
    return replace(
        config,
        data=replace(config.data, path=str(pictures), labels=False),
        discriminator=replace(config.discriminator, camera_conditioning=False, pose_head=True),
        training=replace(config.training, poses=PoseConfig(source="prior")),
    )


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CGSGAN_CACHE", str(run.path.parent / "cache"))
        experiment.train(poseless(pictures, evaluate_kimg=0.016, evaluate_count=COUNT), run)
    return run


def test_a_run_trains_scores_itself_and_shows_heads(trained: RunFolder):
    rows = read_log(trained.log)
    assert [row["kimg"] for row in rows if "frd" in row] == [0.016, 0.024]
    assert all(row["pose_error"] > 0 for row in rows if "logit_gap" in row)
    assert (trained.path / "grid.png").is_file()
    assert load_generator(trained.path).config.training.poses.source == "prior"


def test_the_discriminator_knows_nothing_of_labels(trained: RunFolder):
    """No statistics of labels, and the same logits whatever a camera says."""
    discriminator = Discriminator(load_generator(trained.path).config.discriminator)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    nothing = torch.full((4, 25), torch.nan)
    assert torch.equal(discriminator(images, nothing), discriminator(images, torch.randn(4, 25)))
    assert not [name for name in discriminator.state_dict() if name.startswith("camera")]
    stored = load_file(trained.checkpoints / "kimg-00000.024" / "training.safetensors")
    assert bool((stored["discriminator.label_mean"] == 0).all())
    assert bool((stored["discriminator.label_std"] == 1).all())


def test_resuming_is_exact(trained: RunFolder, pictures: Path, tmp_path: Path):
    config = poseless(pictures, evaluate_kimg=0.016, evaluate_count=COUNT)
    again = RunFolder(tmp_path / "again")
    experiment.train(replace(config, training=replace(config.training, kimg=0.016)), again)
    experiment.train(config, again, resume=True)
    ours, theirs = (run.checkpoints / "kimg-00000.024" / "training.safetensors" for run in (again, trained))
    assert ours.read_bytes() == theirs.read_bytes()


def test_measured_with_cameras_where_there_are_some_and_with_the_prior_otherwise(
    trained: RunFolder, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ["--count", str(COUNT), "--repeats", "1"]
    out = tmp_path / "blind.json"
    assert main(["evaluate", str(trained.path), *asked, "--metrics", "fid", "--out", str(out)]) == 0
    scored = [row["frd"] for row in read_log(trained.log) if "frd" in row][-1]
    assert json.loads(out.read_text())["figures"]["frd"]["mean"] == pytest.approx(scored, rel=1e-4)
    capsys.readouterr()
    assert main(["evaluate", str(trained.path), *asked, "--metrics", "fid", "pose"]) == 2
    assert "--metrics pose compare cameras, which the data set does not have" in capsys.readouterr().err
    labelled = ["--data", str(pictures.parent / "heads.zip")]
    assert main(["evaluate", str(trained.path), *asked, *labelled, "--metrics", "yaw"]) == 0


def test_a_set_without_cameras_is_refused_by_who_needs_them(pictures: Path, tmp_path: Path):
    config = tiny_config(kimg=0.008)
    config = replace(config, data=replace(config.data, path=str(pictures)))
    with pytest.raises(
        DatasetError, match=r"no dataset.json in it.*data.labels: false and training.poses.source: prior"
    ):
        experiment.train(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
