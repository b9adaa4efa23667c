"""Starting from another run: what was learned is kept exactly, what cannot be kept is refused by name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d

from cgsgan.cli import main
from cgsgan.config import ConfigError, ExperimentConfig, config_to_dict, load_config, parse_config
from cgsgan.experiment import train
from cgsgan.growing import grow_first_convolution, read_origin, start_from
from cgsgan.models.discriminator import Discriminator
from cgsgan.models.discriminator_inputs import append_coordinates
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.training.checkpoint import TrainingState, list_checkpoints, save_checkpoint
from cgsgan.training.generator_file import CheckpointError, GeneratorFile, read_generator
from cgsgan.training.run_folder import RunFolder
from cgsgan.training.state_tensors import prefixed
from tests.tiny_experiment import TINY, randomize

CONFIGS = Path(__file__).parents[1] / "configs"
SYNTHETIC = {"synthetic": {"count": 24, "resolution": 64}}
SHORT = {**TINY["training"], "kimg": 0.032, "checkpoint_kimg": 0.016, "sample_kimg": 1.0, "log_kimg": 0.016}


def tiny(resolution: int, unshuffle: int, **parts: dict[str, Any]) -> ExperimentConfig:
    """The tiny experiment at a size; ``parts`` override top-level mappings key by key."""
    values: dict[str, Any] = {**TINY, "resolution": resolution, "data": SYNTHETIC, "training": SHORT}
    values["discriminator"] = {**TINY["discriminator"], "unshuffle": unshuffle}
    if resolution // unshuffle == 32:
        values["discriminator"]["channels"] = [8, 8, 8, 8]
    for name, part in parts.items():
        values[name] = {**values[name], **part} if isinstance(part, dict) else part
    return parse_config(values, source="tests")


def networks(config: ExperimentConfig, seed: int = 0) -> tuple[GaussianGenerator, Discriminator]:
    """Both networks, away from their start."""
    torch.manual_seed(seed)
    generator, discriminator = GaussianGenerator(config.generator), Discriminator(config.discriminator)
    randomize(generator)
    randomize(discriminator)
    discriminator.set_label_statistics(torch.rand(25), torch.rand(25) + 0.5)
    generator.mapping.w_average.normal_()
    return generator, discriminator


def saved(folder: Path, config: ExperimentConfig) -> tuple[GaussianGenerator, Discriminator]:
    """A checkpoint of random networks below ``folder``."""
    generator, discriminator = networks(config)
    file = GeneratorFile(config=config_to_dict(config), images_seen=45_800, weights=generator.state_dict())
    tensors = prefixed("discriminator", discriminator.state_dict())
    save_checkpoint(folder / "checkpoints", file, TrainingState(tensors=tensors, progress={}))
    return generator, discriminator


@pytest.mark.parametrize(("small", "unshuffle", "factor"), [(32, 1, 2), (32, 2, 2), (32, 1, 4), (32, 1, 1)])
def test_the_grown_discriminator_sees_the_mean_of_every_square(tmp_path: Path, small: int, unshuffle: int, factor: int):
    before = tiny(small, unshuffle)
    after = tiny(small * factor, unshuffle * factor)
    _, old = saved(tmp_path, before)
    fresh_generator, grown = networks(after, seed=1)
    start_from(read_origin(str(tmp_path)), after, fresh_generator, grown)
    images, labels = torch.rand(8, 3, after.resolution, after.resolution) * 2 - 1, torch.randn(8, 25)
    with torch.no_grad():
        expected = old.double()(avg_pool2d(images.double(), factor), labels.double())
        found = grown.double()(images.double(), labels.double())
    assert expected.std() > 0.01
    # Stored weights are float32: seen 2e-8 of logits of about 0.5.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-7)


def test_the_first_convolution_against_a_formula_of_its_own():
    """out(y, x) = sum over taps and colours of w / sqrt(in k^2) times the mean of the square, written out."""
    random = torch.Generator().manual_seed(3)
    old = torch.randn(5, 12, 3, 3, generator=random, dtype=torch.float64)
    grown = grow_first_convolution(old, 2, 4)
    assert grown.shape == (5, 48, 3, 3)
    images = torch.randn(2, 3, 16, 16, generator=random, dtype=torch.float64)
    found = torch.conv2d(torch.pixel_unshuffle(images, 4), grown / (48 * 9) ** 0.5, padding=1)
    expected = torch.conv2d(torch.pixel_unshuffle(avg_pool2d(images, 2), 2), old / (12 * 9) ** 0.5, padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_coordinates_stay_beside_the_enlarged_colours():
    random = torch.Generator().manual_seed(3)
    old = torch.randn(5, 12 + 2, 3, 3, generator=random, dtype=torch.float64)
    grown = grow_first_convolution(old, 2, 4, coordinates=2)
    images = torch.randn(2, 3, 16, 16, generator=random, dtype=torch.float64)
    seen = append_coordinates(torch.pixel_unshuffle(images, 4))
    found = torch.conv2d(seen, grown / (50 * 9) ** 0.5, padding=1)
    seen = append_coordinates(torch.pixel_unshuffle(avg_pool2d(images, 2), 2))
    expected = torch.conv2d(seen, old / (14 * 9) ** 0.5, padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_generator_goes_on_as_it_was(tmp_path: Path):
    before, after = tiny(32, 1), tiny(64, 2)
    old, _ = saved(tmp_path, before)
    generator, discriminator = networks(after, seed=1)
    said = start_from(read_origin(str(tmp_path)), after, generator, discriminator)
    for name, value in generator.state_dict().items():  # w_average is among them
        assert torch.equal(value, old.state_dict()[name]), name
    assert "32 -> 64 px" in said
    assert "45.8 kimg" in said
    assert "unshuffle 1 -> 2" in said


def test_added_levels_change_the_scene_hardly_and_only_by_adding(tmp_path: Path):
    before = tiny(32, 1)
    anchors = {**TINY["generator"]["anchors"], "split_factors": [1, 2, 4]}
    after = tiny(64, 2, generator={"anchors": anchors})
    old, _ = saved(tmp_path, before)
    torch.manual_seed(1)
    generator, discriminator = GaussianGenerator(after.generator), Discriminator(after.discriminator)
    said = start_from(read_origin(str(tmp_path)), after, generator, discriminator)
    assert "1 level(s) added" in said
    z = torch.randn(4, 8)
    with torch.no_grad():
        was, now = old(z).gaussians, generator(z).gaussians
    count = was.means.shape[1]
    assert now.means.shape[1] == count + 16 * 8
    for name, tensor, kept in zip(("means", "quats", "scales", "opacities", "colors"), now.tensors(), was.tensors()):
        torch.testing.assert_close(tensor[:, :count], kept, rtol=1e-5, atol=1e-6, msg=name)
    # Their anchors are the Gaussians of what was the last level; each is 20 times fainter (in odds) than its own.
    parents = was.opacities[:, -32:].repeat_interleave(4, dim=1).logit()
    expected = (20 * torch.tanh((parents - 3) / 20)).sigmoid()
    torch.testing.assert_close(now.opacities[:, count:], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (tiny(64, 2, generator={"transformer": {**TINY["generator"]["transformer"], "width": 32}}),
         r"generator.transformer.width: 16 -> 32; generator.anchors.feature_widths: \[16, 16\] -> \[32, 16\]"),
        (tiny(64, 2, generator={"anchors": {**TINY["generator"]["anchors"], "split_factors": [1, 3]}}),
         r"split_factors: \[1, 2\] -> \[1, 3\] \(levels can only be added\)"),
        (tiny(64, 2, generator={"anchors": {**TINY["generator"]["anchors"], "first_offset": 0.5}}),
         "generator.anchors.first_offset: 0.2 -> 0.5"),
        (tiny(64, 2, discriminator={"downsample": "fir"}), "discriminator.downsample: 'average' -> 'fir'"),
        (tiny(64, 2, discriminator={"channels": [8, 8, 8, 9]}), r"channels: \[8, 8, 8, 8\] -> \[8, 8, 8, 9\]"),
        (tiny(128, 4, discriminator={"camera_width": 9}), "discriminator.camera_width: 8 -> 9"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path: Path, change: ExperimentConfig, message: str):
    saved(tmp_path, tiny(32, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        start_from(read_origin(str(tmp_path)), change, *networks(change))
    assert str(caught.value).startswith("training.start_from: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (tiny(64, 2), tiny(32, 1), "its resolution is 64 and this one's 32; it only grows"),
        (
            tiny(32, 1),
            tiny(64, 1, discriminator={"channels": [8] * 5}),
            "from 1 to 2, but this config has 1; set ",
        ),
        (
            tiny(32, 1),
            tiny(64, 4, discriminator={"channels": [8] * 3}),
            "1 to 2, .* has 4; set .*unshuffle 2",
        ),
        (tiny(64, 4, discriminator={"channels": [8] * 3}), tiny(128, 4), "from 4 to 8, .* has 4; grow by less"),
    ],
)
def test_sizes_that_do_not_grow_by_unshuffling_are_refused(
    tmp_path: Path, before: ExperimentConfig, after: ExperimentConfig, message: str
):
    saved(tmp_path, before)
    with pytest.raises(ConfigError, match=message):
        start_from(read_origin(str(tmp_path)), after, *networks(after))


def test_paths_that_hold_no_run_are_refused_in_one_line(tmp_path: Path):
    saved(tmp_path / "run", tiny(32, 1))
    checkpoint = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    shutil.copy(checkpoint / "generator.safetensors", tmp_path / "generator.safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    for path, message in (
        (tmp_path / "none", "no such file or folder"),
        (tmp_path / "empty", "holds no checkpoint"),
        (tmp_path / "text", "holds a generator alone; expected a run folder"),
        (tmp_path / "generator.safetensors", "holds a generator alone; expected a run folder"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            read_origin(str(path))
        assert str(caught.value).startswith("training.start_from: ")
        assert "\n" not in str(caught.value)
    (checkpoint / "training.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="cannot resume from it"):
        read_origin(str(tmp_path / "run"))


def test_a_grown_run_resumes_without_the_run_it_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CGSGAN_CACHE", str(tmp_path / "cache"))
    first, second = RunFolder(tmp_path / "small"), RunFolder(tmp_path / "large")
    train(tiny(32, 1), first)
    config = tiny(64, 2)
    config = replace(config, training=replace(config.training, start_from=str(first.path)))
    whole = RunFolder(tmp_path / "whole")
    train(replace(config, training=replace(config.training, kimg=0.064)), whole)
    train(config, second)
    assert capsys.readouterr().out.count("starts from") == 2
    assert load_config(second.config).training.start_from == str(first.path)
    last = list_checkpoints(second.checkpoints)[-1]
    assert read_generator(last / "generator.safetensors").images_seen == 32  # counted from 0
    shutil.rmtree(first.path)
    train(replace(config, training=replace(config.training, kimg=0.064)), second, resume=True)
    assert "starts from" not in capsys.readouterr().out
    ends = [load_file(list_checkpoints(run.checkpoints)[-1] / "training.safetensors") for run in (whole, second)]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


def test_it_begins_where_the_other_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With rates of 0 nothing moves: the first checkpoint holds the origin's average, and fresh Adam states."""
    monkeypatch.setenv("CGSGAN_CACHE", str(tmp_path / "cache"))
    first, second = RunFolder(tmp_path / "small"), RunFolder(tmp_path / "same")
    config = tiny(32, 1)
    train(config, first)
    still = replace(config.training.optimizer, generator_lr=0.0, discriminator_lr=0.0)
    config = replace(config, training=replace(config.training, start_from=str(first.path), optimizer=still, kimg=0.016))
    train(config, second)
    before = read_generator(list_checkpoints(first.checkpoints)[-1] / "generator.safetensors").weights
    state = load_file(list_checkpoints(second.checkpoints)[-1] / "training.safetensors")
    judged = load_file(list_checkpoints(first.checkpoints)[-1] / "training.safetensors")
    for name, value in before.items():
        if name != "mapping.w_average":  # goes on moving
            assert torch.equal(state[f"generator.{name}"], value), name
    for name, value in judged.items():
        if name.startswith("discriminator."):
            assert torch.equal(state[name], value), name
    assert state["generator_adam.0.step"] == 2  # of this run's two steps


def test_the_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = str(CONFIGS / "heads64_grown.yaml")
    assert main(["train", config, "--out", str(tmp_path / "run"), "--training.start-from", str(tmp_path / "no")]) == 2
    error = capsys.readouterr().err.strip()
    assert error == (
        f"cgsgan train: training.start_from: {tmp_path / 'no'}: no such file or folder; expected a run folder, a "
        "checkpoint or a .safetensors"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("small", "large"), [("heads32", "heads64_grown"), ("shipped32", "shipped64")])
def test_the_configs_that_ship_fit_each_other(tmp_path: Path, small: str, large: str):
    before, after = load_config(CONFIGS / f"{small}.yaml"), load_config(CONFIGS / f"{large}.yaml")
    saved(tmp_path, before)
    start_from(read_origin(str(tmp_path)), after, *networks(after, seed=1))
    assert after.training.start_from == f"runs/{small}"
    assert after.training.loss.r1_gamma == pytest.approx(4 * before.training.loss.r1_gamma)
