"""Cameras of a prior: their distribution and geometry against plain NumPy, and trainings that see no labels."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from cgsgan.cameras import Cameras, yaw_pitch
from cgsgan.config import ConfigError, ExperimentConfig, parse_config
from cgsgan.training.batches import Batches
from cgsgan.training.poses import AngleConfig, PoseConfig, PosePrior
from tests.tiny_experiment import TINY, TINY_PLANES, TinyData, tiny_trainer

PRIOR = PoseConfig(
    source="prior",
    yaw=AngleConfig(std=20.0, limit=60.0, uniform_share=0.3),
    pitch=AngleConfig(mean=-5.0, std=9.0, limit=25.0),
    radius=3.1,
    target=(0.1, -0.2, 0.05),
    focal=2.5,
)


def poseless(values: dict = TINY, **poses: object) -> ExperimentConfig:
    """A tiny experiment without labels."""
    tiny = {
        **values,
        "data": {"labels": False},
        "discriminator": {**values["discriminator"], "camera_conditioning": False},
        "training": {**values["training"], "poses": {"source": "prior", **poses}},
    }
    return parse_config(tiny, source="tests")


def test_angles_are_distributed_as_configured():
    count = 200_000
    labels = PosePrior(replace(PRIOR, target=(0.0, 0.0, 0.0))).sample_labels(count, torch.Generator().manual_seed(1))
    yaw, pitch = (torch.rad2deg(angle).double().numpy() for angle in yaw_pitch(Cameras.from_labels(labels)))
    # The share of a mixture below a bound, in closed form; the standard error is below 0.0012.
    for bound in (-45.0, -10.0, 0.0, 25.0, 55.0):
        normal, uniform = 0.5 * (1 + math.erf(bound / 20 / math.sqrt(2))), (bound + 60) / 120
        assert abs(np.mean(yaw < bound) - (0.7 * normal + 0.3 * uniform)) < 0.005
    for bound in (-25.0, -5.0, 8.0):
        assert abs(np.mean(pitch < bound) - 0.5 * (1 + math.erf((bound + 5) / 9 / math.sqrt(2)))) < 0.005
    assert np.abs(yaw).max() <= 60.001
    assert pitch.min() >= -30.001
    assert pitch.max() <= 20.001
    assert abs(np.corrcoef(yaw, pitch)[0, 1]) < 0.01


def test_cameras_look_at_the_target_upright():
    labels = PosePrior(PRIOR).sample_labels(64, torch.Generator().manual_seed(2)).double().numpy()
    target = np.array(PRIOR.target)
    for label in labels:
        pose, K = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)
        away = pose[:3, 3] - target
        assert abs(np.linalg.norm(away) - 3.1) < 1e-5
        np.testing.assert_allclose(pose[:3, 2], -away / 3.1, atol=1e-6)  # forward
        assert abs(pose[1, 0]) < 1e-6  # right is level: no roll
        assert pose[1, 1] < 0  # down points down
        np.testing.assert_allclose(K, [[2.5, 0, 0.5], [0, 2.5, 0.5], [0, 0, 1]], atol=1e-7)


def test_settings_of_one_angle_do_not_move_the_other():
    wide = replace(PRIOR, yaw=AngleConfig(std=1.0, uniform_share=1.0))
    pitches = [
        yaw_pitch(Cameras.from_labels(PosePrior(c).sample_labels(9, torch.Generator().manual_seed(3))))[1]
        for c in (replace(PRIOR, target=(0.0, 0.0, 0.0)), replace(wide, target=(0.0, 0.0, 0.0)))
    ]
    torch.testing.assert_close(*pitches, atol=1e-6, rtol=0)


class Processes(Accelerator):
    """What draws ask of Accelerate, as one process of several would be told."""

    def __init__(self, rank: int, count: int) -> None:
        self._told = rank, count

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def process_index(self) -> int:
        return self._told[0]

    @property
    def num_processes(self) -> int:
        return self._told[1]


def draws_of(rank: int, count: int, step: int) -> torch.Tensor:
    config = poseless()
    batches = Batches(
        TinyData(config, rank, count), PosePrior(config.training.poses), config.training, z_dim=8, num_ws=1,
        accelerator=Processes(rank, count),
    )  # fmt: skip
    return batches.fakes(step, 0, 0)[0].camera_labels


def test_processes_draw_together_what_one_draws_and_steps_stand_alone():
    whole = draws_of(0, 1, step=7)
    assert torch.equal(torch.stack([draws_of(rank, 2, step=7) for rank in range(2)], dim=1).flatten(0, 1), whole)
    assert not torch.equal(draws_of(0, 1, step=8), whole)


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def without_labels(data: TinyData) -> TinyData:
    """Real cameras as an unlabelled set has them."""
    data.labels = torch.full_like(data.labels, torch.nan)
    return data


@pytest.mark.parametrize("values", [TINY, {**TINY_PLANES, "generator": {**TINY_PLANES["generator"],
                         "camera_conditioning": False, "mapping": {"z_dim": 8, "w_dim": 16, "label_dim": 0}}}],
                         ids=["gaussians", "triplanes"])  # fmt: skip
def test_training_without_labels_resumes_bit_for_bit(values: dict, tmp_path: Path, accelerator: Accelerator):
    config = poseless(values)

    def make(folder: str):
        trainer = tiny_trainer(config, tmp_path / folder, accelerator)
        without_labels(trainer.stream)  # type: ignore[arg-type]
        trainer.batches._labels = PosePrior(config.training.poses)
        return trainer

    straight, first, second = make("a"), make("b"), make("c")
    for _ in range(4):
        assert all(bool(torch.isfinite(value).all()) for value in straight.train_step().values())
    for _ in range(2):
        first.train_step()
    second.restore(first._state(), first.ema.state_dict())
    for _ in range(2):
        second.train_step()
    expected = dict(straight.steps.generator.named_parameters())
    for name, parameter in second.steps.generator.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(values, source="here.yaml")


def test_contradictions_are_refused_in_one_line():
    prior = {"poses": {"source": "prior"}}
    blind = {"camera_conditioning": False}
    refused({"training": prior}, r"set discriminator.camera_conditioning: false$")
    refused({"data": {"labels": False}}, r"data.labels: false leaves fakes without cameras; set training.poses.source")
    refused(
        {"training": {"poses": {"source": "prior", "yaw": {"mean": 10.0}}}, "discriminator": blind},
        r"training.poses.yaw.mean: expected 0 with data.x_flip",
    )
    planes = {**TINY_PLANES["generator"], "camera_conditioning": True}
    refused(
        {**TINY_PLANES, "generator": planes, "training": prior,
         "discriminator": {**TINY_PLANES["discriminator"], **blind}},
        "set generator.camera_conditioning: false",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        ({"source": "guess"}, "training.poses.source: expected one of"),
        ({"yaw": {"std": -1.0}}, r"poses.yaw.std: expected a finite number of degrees >= 0, got -1.0"),
        ({"yaw": {"uniform_share": 1.5}}, r"poses.yaw.uniform_share: expected 0 to 1, got 1.5"),
        ({"pitch": {"mean": 70.0, "limit": 25.0}}, r"poses.pitch: expected limit >= 0 and \|mean\| \+ limit <= 89"),
        ({"radius": 0.0}, r"poses.radius: expected a finite number > 0, got 0.0"),
        ({"target": [0.0, 1.0]}, r"poses.target: expected three finite numbers, got \[0.0, 1.0\]"),
    ],
)
def test_values_without_a_meaning_are_refused(poses: dict, message: str):
    refused({"training": {"poses": poses}}, message)
