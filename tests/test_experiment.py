"""The wiring: what is built fits together, and what was trained can be loaded and looked at."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cgsgan
from cgsgan.cameras import orbit
from cgsgan.cli import main
from cgsgan.config import ConfigError, config_to_dict, dump_config, load_config
from cgsgan.experiment import check_resumable
from cgsgan.gallery import contact_sheet, latents_from_seeds
from cgsgan.generators import build_generator
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.training.generator_file import GeneratorFile, write_generator
from cgsgan.training.run_folder import RunFolder
from cgsgan.types import TriPlanes
from tests.tiny_experiment import randomize, tiny_config, tiny_planes


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = tiny_config()
    network = GaussianGenerator(config.generator)
    path = tmp_path / "generator.safetensors"
    write_generator(
        path, GeneratorFile(config=config_to_dict(config), images_seen=12_000, weights=network.state_dict())
    )
    return path


def test_a_saved_generator_makes_scenes_and_pictures(saved: Path):
    generator = cgsgan.load_generator(saved)
    z = latents_from_seeds([3, 4], generator.z_dim)
    output = generator(z)
    assert output.gaussians.means.shape == (2, 48, 3)
    assert not output.gaussians.means.requires_grad
    torch.testing.assert_close(generator(ws=output.ws).gaussians.means, output.gaussians.means)
    average = generator(z, truncation_psi=0.0).gaussians.means
    torch.testing.assert_close(average[0], average[1])
    sheet = contact_sheet(generator, generator.renderer, z, size=32)
    assert sheet.shape[0] == 3
    assert sheet.min() < 0.9  # something was drawn on the white


def test_a_seed_is_the_same_head_in_any_company():
    alone, together = latents_from_seeds([7], 16), latents_from_seeds([1, 7, 9], 16)
    assert torch.equal(alone[0], together[1])


def test_the_training_size_travels_with_the_generator(saved: Path):
    generator = cgsgan.load_generator(saved)
    assert generator.renderer.training_size == generator.resolution == 32
    # sqrt(0.3) pixels of a 32 px picture at distance 2.7 with focal length 4.2647
    assert generator.dilation == pytest.approx(0.3**0.5 * 2.7 / (4.2647 * 32))


def test_weights_that_do_not_fit_are_refused(saved: Path):
    config = tiny_config()
    weights = GaussianGenerator(config.generator).state_dict()
    weights.popitem()
    write_generator(saved, GeneratorFile(config=config_to_dict(config), images_seen=0, weights=weights))
    with pytest.raises(ConfigError, match="weights do not fit its config"):
        cgsgan.load_generator(saved)


def test_resuming_as_another_experiment_names_the_fields(tmp_path: Path):
    from cgsgan.config import dump_config

    run = RunFolder(tmp_path / "run")
    run.create(dump_config(tiny_config()))
    check_resumable(run, tiny_config(kimg=5.0))
    with pytest.raises(ConfigError, match=r"training.batch_size: 8 -> 4; training.seed: 0 -> 1"):
        check_resumable(run, tiny_config(batch_size=4, seed=1))


def test_importing_is_light():
    code = (
        "import sys, cgsgan\n"
        "heavy = {'torch', 'rasterizer.backend', 'timm', 'viser', 'av', 'accelerate', 'tyro'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], timeout=60)


def test_latents_are_not_the_weights_of_a_network_of_the_same_seed():
    torch.manual_seed(0)
    weights = torch.randn(64)
    assert torch.cosine_similarity(latents_from_seeds([0], 64)[0], weights, dim=0).abs() < 0.5


@pytest.fixture
def saved_planes(tmp_path: Path) -> Path:
    config = tiny_planes()
    network = build_generator(config.generator)
    randomize(network, 0.1)
    path = tmp_path / "planes.safetensors"
    weights = dict(network.state_dict())
    write_generator(path, GeneratorFile(config=config_to_dict(config), images_seen=5_000, weights=weights))
    return path


def test_a_saved_tri_plane_generator_makes_scenes_and_pictures(saved_planes: Path):
    generator = cgsgan.load_generator(saved_planes)
    z = latents_from_seeds([3, 4], generator.z_dim)
    scenes = generator(z).scenes
    assert isinstance(scenes, TriPlanes)
    torch.testing.assert_close(generator(ws=generator(z).ws).scenes.planes, scenes.planes)
    front, side = orbit(torch.zeros(2), torch.zeros(2)).to_labels(), orbit(torch.ones(2), torch.zeros(2)).to_labels()
    torch.testing.assert_close(generator(z, camera_labels=front).scenes.planes, scenes.planes)
    assert (generator(z, camera_labels=side).scenes.planes - scenes.planes).abs().max() > 1e-4
    sheet = contact_sheet(generator, generator.renderer, z, size=32)
    assert torch.equal(sheet, contact_sheet(generator, generator.renderer, z, size=32))  # nothing random is left
    assert sheet.std() > 0.01
    with pytest.raises(ValueError, match="no Gaussians"):
        _ = generator.dilation


def test_labels_for_a_generator_that_does_not_look_at_them_are_refused(saved: Path):
    generator = cgsgan.load_generator(saved)
    z = latents_from_seeds([3], generator.z_dim)
    with pytest.raises(ValueError, match="does not look at cameras"):
        generator(z, camera_labels=torch.zeros(1, 25))


def test_tri_planes_have_a_grid_and_a_turntable_but_no_ply(
    saved_planes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    shown = ["--seeds", "0", "--size", "32", "--frames", "2", "--turntable", "webp", "--grid"]
    assert main(["render", str(saved_planes), "--out", str(out), *shown]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["grid.png", "turntable.webp"]
    assert main(["render", str(saved_planes), "--out", str(out), "--ply"]) == 2
    assert main(["render", str(saved_planes), "--out", str(out), "--grid", "--background", "black"]) == 2
    assert main(["render", str(saved_planes), "--out", str(out), "--seeds", "0", "--walk"]) == 2
    errors = capsys.readouterr().err.splitlines()[-3:]
    assert "hold no Gaussians" in errors[0]
    assert "draws a background of its own" in errors[1]
    assert "--walk: expected at least 2 heads" in errors[2]
    assert main(["info", str(saved_planes)]) == 0
    assert "EG3D tri-plane generator" in capsys.readouterr().out


def test_a_tri_plane_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = replace(tiny_planes(kimg=0.016, checkpoint_kimg=0.016), name="first")
    path, first, second = tmp_path / "first.yaml", tmp_path / "first", tmp_path / "second"
    path.write_text(dump_config(config))
    small = ["--data.synthetic.count", "16", "--data.synthetic.resolution", "32", "--rendering.samples", "4"]
    assert main(["train", str(path), "--out", str(first), *small]) == 0, capsys.readouterr().err
    assert {"grid.png", "turntable.webp"} <= {file.name for file in first.iterdir()}
    assert not (first / "head.ply").exists()
    assert load_config(first / "config.yaml").rendering == replace(config.rendering, samples=4)
    # The next stage begins with the first one's networks.
    more = ["--training.start-from", str(first), "--training.planes.final-neural-resolution", "16"]
    assert main(["train", str(path), "--out", str(second), *small, *more]) == 0
    assert "same size; generator from its average" in capsys.readouterr().out
    gaussian = tmp_path / "gaussian.yaml"
    gaussian.write_text(dump_config(replace(tiny_config(), name="gaussian")))
    assert main(["train", str(gaussian), "--out", str(tmp_path / "no"), "--training.start-from", str(first)]) == 2
    assert "its generator makes triplanes and this one's gaussians" in capsys.readouterr().err
