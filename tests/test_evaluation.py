"""Evaluation on a tiny generator and a small set of procedural heads; every part is the real one."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import cgsgan.metrics.features
from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.cli import main
from cgsgan.cli.evaluate import EvaluateArguments, Metric
from cgsgan.config import config_to_dict
from cgsgan.data.dataset import DataConfig, open_dataset
from cgsgan.data.depth_truth import DepthTruth, open_depth_truth
from cgsgan.data.errors import DatasetError
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic
from cgsgan.evaluation import ALL_METRICS, EvaluationConfig, Evaluator, GeneratorScenes
from cgsgan.evaluation.pose import label_angles, learn_poses
from cgsgan.evaluation.settings import SELF_SUFFICIENT
from cgsgan.evaluation.studio import Studio
from cgsgan.evaluation.views import surface_depths, view_likeness
from cgsgan.generators import load_generator
from cgsgan.metrics import frechet_distance
from cgsgan.metrics.extractors import open_extractor
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.training.generator_file import GeneratorFile, write_generator
from cgsgan.types import Gaussians
from tests.tiny_experiment import randomize, tiny_config

ROOT = Path(__file__).parents[1]
COUNT = 48


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "heads.zip"
    make_synthetic(SyntheticConfig(count=COUNT, resolution=32), path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config()
    torch.manual_seed(0)
    network = GaussianGenerator(config.generator)
    randomize(network)
    path = tmp_path_factory.mktemp("checkpoint") / "generator.safetensors"
    write_generator(path, GeneratorFile(config=config_to_dict(config), images_seen=9000, weights=network.state_dict()))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CGSGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def evaluator(
    checkpoint: Path, heads: Path, source: object = None, identity: object = None, truth: object = None,
    **config: object,
) -> Evaluator:  # fmt: skip
    generator = load_generator(checkpoint)
    options = {"count": COUNT, "repeats": 1, "batch_size": 16} | config
    return Evaluator(
        source=source or GeneratorScenes(generator),  # type: ignore[arg-type]
        dataset=open_dataset(DataConfig(path=str(heads), resolution=32, x_flip=False)),
        extractor=open_extractor("random"),
        config=EvaluationConfig(**options),  # type: ignore[arg-type]
        accelerator=Accelerator(cpu=True),
        identity=identity,  # type: ignore[arg-type]
        truth=truth,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def solid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of few large Gaussians that nothing shines through."""
    config = tiny_config()
    anchors = replace(config.generator.anchors, start_opacity=0.995, start_log_scale=-1.2)
    config = replace(config, generator=replace(config.generator, anchors=anchors))
    torch.manual_seed(0)
    network = GaussianGenerator(config.generator)
    randomize(network, 0.05)
    path = tmp_path_factory.mktemp("solid") / "generator.safetensors"
    write_generator(path, GeneratorFile(config=config_to_dict(config), images_seen=9000, weights=network.state_dict()))
    return path


@pytest.fixture(scope="module")
def truth(solid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Persons of known depth: what the generator itself makes of other latents."""
    cameras = orbit(torch.tensor([0.0, 0.6]), torch.zeros(2))
    running = Studio(GeneratorScenes(load_generator(solid)), Accelerator(cpu=True))
    z = torch.randn(6, running.source.z_dim, generator=torch.Generator().manual_seed(3))
    depths = surface_depths(running, z, cameras, 32).nan_to_num(0)
    path = tmp_path_factory.mktemp("truth") / "persons.zip"
    write_truth(path, depths, cameras)
    return path


def write_truth(path: Path, depths: torch.Tensor, cameras: Cameras, array: str = "depth") -> None:
    labels = cameras.to_labels().tolist()
    entries = [[f"{p:05d}/view{v}.png", label] for p in range(len(depths)) for v, label in enumerate(labels)]
    packed = io.BytesIO()
    np.savez(packed, **{array: depths.half().numpy()})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("dataset.json", json.dumps({"labels": entries[::-1]}))  # sorted by name when read
        file.writestr("depth_landmarks.npz", packed.getvalue())


class CameraFollower(GeneratorScenes):
    """A generator that paints a head by where it is to be seen from, as conditioned ones may: dark from aside."""

    def __call__(self, z: torch.Tensor, conditioning: Cameras) -> Gaussians:
        scenes = super().__call__(z, conditioning)
        yaw = yaw_pitch(conditioning)[0]
        return replace(scenes, colors=scenes.colors * (-4 * yaw.abs()[:, None, None]).exp())


def test_fid3d_equals_fid_for_a_generator_that_ignores_the_camera_and_differs_for_one_that_does_not(
    checkpoint: Path, heads: Path
):
    ignoring = evaluator(checkpoint, heads, metrics=("fid", "fid3d")).measure()["figures"]
    assert ignoring["fid3d"]["values"] == ignoring["fid"]["values"]
    follower = CameraFollower(load_generator(checkpoint))
    following = evaluator(checkpoint, heads, follower, metrics=("fid", "fid3d")).measure()["figures"]
    # Observed 60.99 against 59.19: the same latents and cameras, so the difference is the conditioning's alone.
    assert following["fid3d"]["mean"] - following["fid"]["mean"] > 1
    # Asked from the front, the follower makes what the ignoring one does.
    assert following["fid3d"]["values"] == ignoring["fid"]["values"]


def test_all_figures(checkpoint: Path, heads: Path):
    told: list[tuple[str, int, int]] = []
    running = evaluator(checkpoint, heads, repeats=2)
    running.progress = lambda task, done, total: told.append((task, done, total))
    found = running.measure()
    figures = found["figures"]
    assert {"fid", "frd", "kid_x1000", "precision", "recall", "fid3d", "swd_32", "swd_16"} < set(figures)
    assert {"pose_yaw_deg", "pose_pitch_floor_deg", "similarity_same", "similarity_told_apart"} < set(figures)
    assert sum(name.startswith("fid_yaw") for name in figures) == 5
    for degrees in (10, 30):
        depth, share = (figures[f"consistency_{k}_{degrees}deg"]["mean"] for k in ("depth", "visible"))
        assert 0 < depth < 0.05
        assert 0 < share <= 1
    for name in ("fid", "kid_x1000", "swd_32"):
        values = figures[name]["values"]
        assert len(set(values)) == 2
        assert figures[name]["mean"] == pytest.approx(sum(values) / 2)
        assert figures[name]["std"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert found["real_pictures"] == COUNT
    assert ("repeat 2/2: pictures", COUNT, COUNT) in told


def test_pose_beside_its_floor(checkpoint: Path, heads: Path, cache: Path):
    running = evaluator(checkpoint, heads, metrics=("pose",), repeats=2)
    figures = running.measure()["figures"]
    kept = list((cache / "poses").iterdir())
    assert len(kept) == 1
    taught = learn_poses(running.studio, running.dataset)
    assert taught is not None
    draws = running.draw(0)
    pictures = running.fake_pictures(draws, Cameras.from_labels(draws.labels), torch.arange(COUNT))
    expected = (taught.estimator(pictures) - label_angles(draws.labels)).abs().rad2deg().mean(dim=0)
    for axis, name in enumerate(("yaw", "pitch")):
        assert figures[f"pose_{name}_deg"]["values"][0] == pytest.approx(float(expected[axis]), rel=1e-4)
        assert figures[f"pose_{name}_floor_deg"]["values"] == [pytest.approx(float(taught.floor[axis]))] * 2
    first = kept[0].read_bytes()
    kept[0].write_bytes(b"damaged")
    again = learn_poses(running.studio, running.dataset)
    assert again is not None
    assert torch.equal(again.floor, taught.floor)
    assert kept[0].read_bytes() == first


def test_too_few_pictures_teach_no_poses(checkpoint: Path, tmp_path: Path):
    make_synthetic(SyntheticConfig(count=20, resolution=32), tmp_path / "few.zip")
    figures = evaluator(checkpoint, tmp_path / "few.zip", metrics=("pose",), count=8).measure()["figures"]
    assert {name: figure["mean"] for name, figure in figures.items()} == dict.fromkeys(
        ("pose_yaw_deg", "pose_yaw_floor_deg", "pose_pitch_deg", "pose_pitch_floor_deg")
    )


def test_views_of_one_scene_are_the_more_alike(checkpoint: Path, heads: Path):
    running = evaluator(checkpoint, heads)
    draws = running.draw(0)
    figures = view_likeness(running.studio, running.extractor, draws.z, draws.labels, "")
    images = [
        running.studio.render(draws.z, Cameras.from_labels(labels[:, None])).images[:, 0].clamp(0, 1)
        for labels in (draws.labels, draws.labels.roll(-1, dims=0))
    ]
    first, second = (running.extractor(pictures) for pictures in images)
    cosines = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=2)
    assert figures["same"] == pytest.approx(float(cosines.diagonal().mean()), rel=1e-5)
    assert figures["same"] > figures["other"]
    assert figures["told_apart"] > 0.6


def test_what_needs_more_says_so_and_gets_its_own_names(solid: Path, heads: Path, truth: Path):
    for name, words in (("identity", "--identity-model"), ("depth", "--depth-truth")):
        with pytest.raises(ValueError, match=f"--metrics {name} needs .*{words}"):
            evaluator(solid, heads, metrics=(name,))
    running = evaluator(
        solid, heads, metrics=("similarity", "identity", "depth"),
        identity=open_extractor("random"), truth=open_depth_truth(truth),
    )  # fmt: skip
    figures = running.measure()["figures"]
    assert figures["identity_same"] == figures["similarity_same"]  # the same features under both names here
    # Persons of the same generator: as near as they are to each other, and on average in the same place.
    assert figures["depth_nearest"]["mean"] == pytest.approx(figures["depth_nearest_floor"]["mean"], rel=0.3)
    assert abs(figures["depth_offset"]["mean"]) < 2 * figures["depth_mean_floor"]["mean"]
    assert figures["depth_spread"]["mean"] == pytest.approx(1, abs=0.5)


def test_depth_truth_is_read_by_name_and_refused_in_one_line(truth: Path, tmp_path: Path):
    found = open_depth_truth(truth)
    assert isinstance(found, DepthTruth)
    assert found.depths.shape == (6, 2, 32, 32)
    assert bool(found.depths.isnan().any())
    assert not bool((found.depths == 0).any())
    assert float(yaw_pitch(found.cameras)[0][1]) == pytest.approx(0.6, abs=1e-5)
    cameras, depths = orbit(torch.tensor([0.0, 0.6]), torch.zeros(2)), torch.ones(6, 2, 8, 8)
    write_truth(tmp_path / "other.zip", depths, cameras, array="deep")
    write_truth(tmp_path / "shape.zip", depths[:, :, :4], cameras)
    write_truth(tmp_path / "empty.zip", depths * torch.arange(6)[:, None, None, None], cameras)
    for name, words in (("other", "no readable array `depth`"), ("shape", r"expected depth maps \[person"),
                        ("empty", "no depth anywhere")):  # fmt: skip
        with pytest.raises(DatasetError, match=words):
            open_depth_truth(tmp_path / f"{name}.zip")
    moving = io.BytesIO()
    np.savez(moving, depth=depths.numpy())
    with zipfile.ZipFile(tmp_path / "moving.zip", "w") as file:
        labels = orbit(torch.linspace(0, 1, 12), torch.zeros(12)).to_labels().tolist()
        file.writestr("dataset.json", json.dumps({"labels": [[f"{i:02d}.png", v] for i, v in enumerate(labels)]}))
        file.writestr("depth_landmarks.npz", moving.getvalue())
    with pytest.raises(DatasetError, match="not seen by the same cameras"):
        open_depth_truth(tmp_path / "moving.zip")


def test_figures_are_those_of_the_pictures(checkpoint: Path, heads: Path):
    running = evaluator(checkpoint, heads, metrics=("fid",), count=20)
    draws = running.draw(0)
    every = torch.arange(20)
    fake = running.fake_pictures(draws, Cameras.from_labels(draws.labels), every)
    expected = frechet_distance(running.extractor(running.real_pictures(every)), running.extractor(fake))
    assert running.measure()["figures"]["fid"]["mean"] == pytest.approx(expected, rel=1e-5)
    chosen = {tuple(label) for label in running.dataset.labels[running.real_index].tolist()}
    assert {tuple(label) for label in draws.labels.tolist()} <= chosen
    assert fake[:, :, 0, 0].min() > 0.99  # white where nothing is


def test_batches_and_seeds(checkpoint: Path, heads: Path):
    first, other_batches, other_seed = (
        evaluator(checkpoint, heads, metrics=("fid",), **options).measure()["figures"]["fid"]["mean"]
        for options in ({}, {"batch_size": 7}, {"seed": 1})
    )
    assert first == pytest.approx(other_batches, rel=1e-5)
    assert first != pytest.approx(other_seed, rel=1e-5)


def test_latents_are_not_the_initial_weights(checkpoint: Path, heads: Path):
    """set_seed(s) makes weights of the numbers that manual_seed(s) gives latents: rows of weights are no fair draws."""
    torch.manual_seed(0)
    weights = torch.randn(96, 8)
    latents = evaluator(checkpoint, heads).draw(0).z
    assert not any(bool((row == weights).all(dim=1).any()) for row in latents)


def test_bins_of_yaw_hold_their_pictures():
    from cgsgan.metrics.figures import compare_yaw_bins

    real, fake = torch.randn(300, 3), torch.randn(300, 3)
    yaw = torch.linspace(-50, 20, 300).deg2rad()
    figures = compare_yaw_bins((real, yaw), (fake, yaw))
    side = (yaw.rad2deg() >= -30) & (yaw.rad2deg() < -10)
    assert figures["fid_yaw_-30_-10"] == frechet_distance(real[side], fake[side])
    assert figures["fid_yaw_30_inf"] is None
    assert list(figures) == [
        "fid_yaw_-inf_-30", "fid_yaw_-30_-10", "fid_yaw_-10_10", "fid_yaw_10_30", "fid_yaw_30_inf",
    ]  # fmt: skip


def test_real_features_are_kept_by_content(
    checkpoint: Path, heads: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def measure(path: Path, **options: object) -> torch.Tensor:
        return evaluator(checkpoint, path, **options).real_features()

    first = measure(heads)
    assert len(list((cache / "features").iterdir())) == 1
    monkeypatch.setattr(cgsgan.metrics.features, "random_features", lambda *_: pytest.fail("was computed again"))
    assert torch.equal(measure(heads), first)
    elsewhere = tmp_path / "moved.zip"
    elsewhere.write_bytes(heads.read_bytes())
    assert torch.equal(measure(elsewhere), first)
    monkeypatch.undo()
    monkeypatch.setenv("CGSGAN_CACHE", str(cache))
    with zipfile.ZipFile(heads) as old, zipfile.ZipFile(tmp_path / "other.zip", "w") as new:
        images = [name for name in old.namelist() if name != "dataset.json"]
        for name in old.namelist():  # the same names and cameras, one picture in the place of another
            new.writestr(name, old.read(images[1] if name == images[0] else name))
    assert not torch.equal(measure(tmp_path / "other.zip"), first)
    measure(heads, count=20)
    files = list((cache / "features").iterdir())
    assert len(files) == 3
    for file in files:
        file.write_bytes(b"damaged")
    assert torch.equal(measure(heads), first)


def test_the_command(checkpoint: Path, heads: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "figures.json"
    options = ["--count", "40", "--repeats", "2", "--metrics", "fid", "pr", "consistency", "--out", str(out)]
    options += ["--depth-truth", str(truth)]
    assert main(["evaluate", str(checkpoint), "--data", str(heads), *options]) == 0
    printed = capsys.readouterr()
    assert "consistency_depth_30deg" in printed.out
    assert "repeat 2/2: pictures: 40/40" in printed.err
    found = json.loads(out.read_text())
    assert found["images_seen"] == 9000
    assert found["features"] == "random-4-192"
    assert {"depth_mean", "fid"} < set(found["figures"])
    assert f"{found['figures']['fid']['mean']:.5g}" in printed.out


def test_the_command_knows_every_metric_and_measures_what_it_can_by_default():
    assert set(get_args(Metric)) == set(ALL_METRICS)
    assert EvaluateArguments(checkpoint=Path("run")).metrics == SELF_SUFFICIENT
    assert EvaluationConfig().metrics == SELF_SUFFICIENT


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(checkpoint: Path, heads: Path, tmp_path: Path):
    figures = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "cgsgan"]
        options = ["--data", str(heads), "--count", "45", "--repeats", "1", "--out", str(out)]
        done = subprocess.run(
            [sys.executable, *launch, "evaluate", str(checkpoint), *options], check=False, cwd=ROOT, text=True,
            capture_output=True, timeout=240, env={**os.environ, "CGSGAN_CACHE": str(tmp_path / f"cache{processes}")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("wrote ") == 1
        found = json.loads(out.read_text())
        assert found["processes"] == processes
        figures.append({name: f["mean"] for name, f in found["figures"].items()})
    one, two = figures
    assert [name for name, value in one.items() if value is None] == [k for k, value in two.items() if value is None]
    for name, value in one.items():
        assert two[name] == (value if value is None else pytest.approx(value, rel=1e-4)), name  # observed: equal


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "figures.txt"], ["--out: expected a .json"]),
        (["--count", "3"], ["--count: expected at least 8, got 3"]),
        (["--repeats", "0"], ["--repeats: expected at least 1"]),
        (["--psi", "nan"], ["--psi: expected a finite number"]),
        (["--features", "inception", "--weights", "none.pth"], ["none.pth: no such file"]),
        (["--data", "nowhere.zip"], ["nowhere.zip"]),
        (["--identity-weights", "none.pth"], ["--identity-model"]),
        (["--metrics", "identity"], ["--metrics identity needs", "--identity-model"]),
        (["--metrics", "depth"], ["--metrics depth needs", "--depth-truth"]),
    ],
)
def test_mistakes_get_one_line(
    options: list[str], words: list[str], checkpoint: Path, heads: Path, capsys: pytest.CaptureFixture[str]
):
    data = [] if "--data" in options else ["--data", str(heads)]
    assert main(["evaluate", str(checkpoint), *data, *options]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    for word in words:
        assert word in error
