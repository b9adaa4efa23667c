"""The wiring: what is built fits together, and what was trained can be loaded and looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cgsgan
from cgsgan.config import ConfigError, config_to_dict
from cgsgan.experiment import check_resumable
from cgsgan.gallery import contact_sheet, latents_from_seeds
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.training.generator_file import GeneratorFile, write_generator
from cgsgan.training.run_folder import RunFolder
from tests.tiny_experiment import tiny_config


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
