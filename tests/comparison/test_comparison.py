"""Generators side by side: what is measured, what is written, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from cgsgan.cameras import orbit
from cgsgan.cli import main
from cgsgan.comparison import Contestant, measurements, open_contestants, speed
from cgsgan.comparison.measurements import ComparisonConfig
from cgsgan.config import ConfigError, ExperimentConfig, config_to_dict, dump_config
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic
from cgsgan.generators import TrainedGenerator, build_generator
from cgsgan.metrics.extractors import open_extractor
from cgsgan.training.checkpoint import TrainingState, save_checkpoint
from cgsgan.training.generator_file import GeneratorFile
from cgsgan.training.poses import PoseConfig
from cgsgan.training.trainer import Trainer
from tests.test_evaluation import write_truth
from tests.tiny_experiment import randomize, tiny_config, tiny_planes, tiny_surface


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(SyntheticConfig(count=24, resolution=32), tmp_path_factory.mktemp("data") / "heads.zip")


def saved_run(folder: Path, config: ExperimentConfig, kimg: float) -> Path:
    """A run folder with one checkpoint and a log."""
    torch.manual_seed(1)
    network = build_generator(config.generator)
    randomize(network, 0.1)
    stored = GeneratorFile(
        config=config_to_dict(config), images_seen=int(kimg * 1000), weights=dict(network.state_dict())
    )
    save_checkpoint(folder / "checkpoints", stored, TrainingState(tensors={"x": torch.zeros(1)}, progress={}))
    rows = [{"time": 60.0 * i, "kimg": i, "images_per_second": rate} for i, rate in enumerate((10.0, 30.0, 20.0))]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(dump_config(config))
    return folder


def test_gaussians_and_tri_planes_side_by_side(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    runs = [saved_run(tmp_path / "splats", tiny_config(), 3.0), saved_run(tmp_path / "planes", tiny_planes(), 5.0)]
    out = tmp_path / "out"
    asked = ["--count", "16", "--rounds", "2", "--steps", "1", "--seeds", "0-1", "--metrics", "fid", "consistency"]
    code = main(["compare", *map(str, runs), "--data", str(data), "--out", str(out), *asked])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "splats: " in printed.err  # who is being measured
    assert "planes: " in printed.err
    assert printed.out.splitlines()[-1].startswith("wrote ")

    found = json.loads((out / "compare.json").read_text())
    assert found["names"] == ["splats", "planes"]
    rows = found["rows"]
    assert rows["scenes"] == ["gaussians", "triplanes"]
    assert rows["samples per ray"] == [None, 5 + 4]
    assert rows["trained, kimg"] == [3.0, 5.0]
    assert rows["training, images/s by its log"] == [20.0, 20.0]
    assert rows["trained, minutes by its log"] == [2.0, 2.0]
    # 48 Gaussians of 14 numbers; 3 planes of 4 x 8 x 8 and 4 rows of 16 styles.
    assert rows["one kept scene, MB"] == pytest.approx([48 * 14 * 4e-6, (3 * 4 * 64 + 4 * 16) * 4e-6])
    timed = ("training, images/s here, where its run stands", "latent to picture at 32 px, per s")
    for label in (*timed, "frd", "generator parameters"):
        assert all(value > 0 for value in rows[label]), label
    assert "consistency_color_10deg" in rows
    assert any("different numbers of pictures" in note for note in found["notes"])
    assert any("no paper's FID" in note for note in found["notes"])
    with Image.open(out / "compare.png") as picture:
        assert picture.width > 2 * 3 * 32  # three views of each
    page = (out / "compare.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("data:image/webp") == 2
    assert "<script" not in page


def test_four_on_one_page_with_their_shape(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tiny = tiny_config()
    poseless = replace(
        tiny,
        data=replace(tiny.data, labels=False),
        discriminator=replace(tiny.discriminator, camera_conditioning=False),
        training=replace(tiny.training, poses=PoseConfig(source="prior")),
    )
    runs = [
        saved_run(tmp_path / "a_name_that_is_far_too_long_for_a_quarter_of_a_page", poseless, 3.0),
        saved_run(tmp_path / "planes", tiny_planes(), 5.0),
        saved_run(tmp_path / "splats", tiny_config(), 5.0),
    ]
    (checkpoint,) = (runs[2] / "checkpoints").glob("kimg-*")
    slow = shutil.copy(checkpoint / "generator.safetensors", checkpoint / "generator_slow.safetensors")
    cameras = orbit(torch.tensor([0.0, 0.5]), torch.zeros(2))
    write_truth(tmp_path / "truth.zip", torch.full((4, 2, 32, 32), 2.7), cameras)
    out = tmp_path / "out"
    asked = [
        "--count",
        "8",
        "--rounds",
        "1",
        "--seeds",
        "0",
        "--metrics",
        "fid",
        "--depth-truth",
        tmp_path / "truth.zip",
    ]
    code = main(["compare", *map(str, [*runs, slow, "--data", data, "--out", out, *asked])])
    assert code == 0, capsys.readouterr().err
    found = json.loads((out / "compare.json").read_text())
    rows, page = found["rows"], (out / "compare.html").read_text()
    assert found["names"][1:] == ["planes", "splats", "generator_slow"]
    assert rows["cameras in training"] == ["prior", "labels", "labels", "labels"]
    assert all(value > 0 for value in rows["frd"])  # the first opens the set with labels, like the others
    assert len(rows["depth_mean"]) == len(rows["samples per ray"]) == 4
    assert page.count("data:image/webp") == 4
    assert page.index("Pictures against real ones") < page.index("Shape against real heads") < page.index("depth_mean")
    assert "planes, splats and generator_slow</h1>" in page
    with Image.open(out / "compare.png") as picture:
        assert picture.width > 4 * 3 * 32


def test_a_config_takes_part_with_fresh_weights(tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(tiny_planes()))
    run = saved_run(tmp_path / "other" / "tiny", tiny_planes(), 1.0)
    fresh, trained = open_contestants([path, run])
    assert (fresh.generator.images_seen, trained.generator.images_seen) == (0, 1000)
    assert fresh.name != trained.name
    assert fresh.logged_rate is None
    assert fresh.kind == trained.kind == "triplanes"
    assert fresh.parameters() == trained.parameters()
    (again,) = {c.parameters()["generator"] for c in open_contestants([path, path])}
    assert again == sum(p.numel() for p in trained.generator.parameters())


def test_training_is_timed_in_the_stage_where_runs_stand(data: Path, monkeypatch: pytest.MonkeyPatch):
    config = tiny_surface()
    surface = config.training.surface
    seen = (4, int(surface.full_kimg * 1000), 0)  # 0: the end of the schedule
    contestants = [
        Contestant(name="x", source="x", generator=TrainedGenerator(build_generator(config.generator), config, at))
        for at in seen
    ]
    stages = []
    monkeypatch.setattr(Trainer, "train_step", lambda self: stages.append(surface.stage(self.images_seen)))
    real = replace(config.data, path=str(data))
    rates = speed.measure_training(contestants, real, Accelerator(cpu=True), steps=1)
    assert len(rates) == 3
    assert stages == ["sampler", "full", "full"] * 3


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(tiny_config()))
    contestants, extractor = open_contestants([path, path]), open_extractor("random")
    config = ComparisonConfig(data=tiny_config().data, quality=None, rounds=1, size=16)
    for load, told in ((8.0, True), (0.5, False)):
        monkeypatch.setattr(measurements, "busyness", lambda load=load: (load, 2))
        notes = measurements.compare(contestants, config, Accelerator(cpu=True), extractor=extractor).notes
        assert any("The machine was busy" in note for note in notes) == told


def test_a_checkpoint_is_named_after_its_run_and_knows_its_part_of_the_log(tmp_path: Path):
    runs = [saved_run(tmp_path / name, tiny_config(), 1.0) for name in ("one", "two")]
    (checkpoint,) = (runs[0] / "checkpoints").glob("kimg-*")
    first, second = open_contestants([checkpoint, runs[1]])
    assert (first.name, second.name) == ("one kimg-00001.000", "two")
    assert (first.logged_rate, first.logged_minutes) == (20.0, 1.0)  # of 10 and 30, one minute apart
    same, other = open_contestants([checkpoint / "generator.safetensors", runs[0]])
    assert same.name != other.name


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ConfigError, match="expected two or more"):
        open_contestants([tmp_path])
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert "no such file or folder" in error
    assert error.count("\n") == 1


def test_samples_of_every_kind_of_scene():
    def count(config: ExperimentConfig, images_seen: int = 0) -> tuple[float, float] | None:
        generator = TrainedGenerator(build_generator(config.generator), config, images_seen)
        return measurements.count_samples(Contestant(name="x", source="x", generator=generator), 32)

    assert count(tiny_config()) is None
    assert count(tiny_planes()) == pytest.approx((9, 9 * 8**2 / 1e6))  # at neural resolution 8
    # 4 samples, 8 at a tenth of the pixels; a probe of 8 x 8 rays in 8 bins.
    assert count(tiny_surface()) == pytest.approx((4.4, (4.4 * 32**2 + 8 * 8**2) / 1e6))
    assert count(tiny_surface(), images_seen=4) == pytest.approx((8, 8 * 32**2 / 1e6)), "before the sampler is in use"
