"""Stages and targets of the surface schedule, at their corners."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cgsgan.training.surface import SurfaceTrainingConfig

SCHEDULE = SurfaceTrainingConfig(
    sampler_kimg=2.0,
    full_kimg=3.0,
    fade_kimg=2.0,
    beta_start=0.08,
    beta_final=0.01,
    beta_from_kimg=1.0,
    beta_kimg=4.0,
)


@pytest.mark.parametrize(
    ("images", "stage", "detail"),
    [
        (0, "low", 0), (1999, "low", 0), (2000, "sampler", 0), (2999, "sampler", 0), (3000, "full", 0),
        (4000, "full", 0.5), (5000, "full", 1), (9000, "full", 1),
    ],
)  # fmt: skip
def test_stages(images: int, stage: str, detail: int | float) -> None:
    assert SCHEDULE.stage(images) == stage
    assert SCHEDULE.detail(images) == pytest.approx(detail)


@pytest.mark.parametrize(
    ("images", "target"), [(0, 0.08), (1000, 0.08), (2000, 0.04), (3000, 0.02), (4000, 0.01), (9000, 0.01)]
)
def test_beta_falls_by_equal_factors(images: int, target: float) -> None:
    assert SCHEDULE.beta_target(images) == pytest.approx(target, rel=1e-12)


def test_lengths_of_zero_are_steps() -> None:
    sudden = SurfaceTrainingConfig(
        sampler_kimg=0.0,
        full_kimg=0.0,
        fade_kimg=0.0,
        beta_start=0.1,
        beta_final=0.01,
        beta_from_kimg=1.0,
        beta_kimg=1.0,
    )
    assert sudden.stage(0) == "full"
    assert sudden.detail(0) == 1
    assert sudden.beta_target(999) == 0.1
    assert sudden.beta_target(1000) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"full_kimg": 1.0, "sampler_kimg": 2.0}, "at least sampler_kimg 2, got 1"),
        ({"beta_kimg": 1.0, "beta_from_kimg": 2.0}, "at least beta_from_kimg 2, got 1"),
        ({"beta_final": 0.0}, "beta is a length > 0"),
        ({"beta_final": 0.2}, "beta_final <= beta_start"),
        ({"low_resolution": 0}, "low_resolution: expected >= 1, got 0"),
        ({"low_samples": 1}, "low_samples: expected >= 2 or null, got 1"),
        ({"tightness_weight": math.nan}, "tightness_weight: expected a finite number"),
        ({"proposal_weight": -1.0}, "proposal_weight: expected a finite number"),
    ],
)
def test_refuses_schedules_without_a_meaning(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SurfaceTrainingConfig(**wrong)
