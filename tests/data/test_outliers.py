"""Pictures unlike the rest: the distances against known answers, and the rules."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from cgsgan.data import DataConfig, DatasetError, open_dataset
from cgsgan.data.outliers import (
    ModelFilterConfig,
    filter_by_model,
    mahalanobis,
    model_statistics,
    neighbour_distance,
    shrunk_covariance,
)
from cgsgan.data.selection import read_scores, write_report


def draw(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Correlated normal features of unequal spread."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=g, dtype=torch.float64) * torch.logspace(0, -1, width)
    return torch.randn(count, width, generator=g, dtype=torch.float64) @ mix + 3


def test_shrinkage_is_ledoit_and_wolfs() -> None:
    """Against the definition, with the outer products written out."""
    for count, width in ((40, 6), (10, 30)):
        x = draw(count, width)
        x = x - x.mean(dim=0)
        sample = x.T @ x / count
        target = sample.diagonal().mean() * torch.eye(width, dtype=torch.float64)
        spread = (sample - target).square().mean()
        error = torch.stack([(row[:, None] * row - sample).square().mean() for row in x]).sum() / count**2
        share = min(float(error / spread), 1.0)
        expected = share * target + (1 - share) * sample
        # Two orders of the same sums in float64; observed 2e-16 relative.
        torch.testing.assert_close(shrunk_covariance(x), expected, rtol=1e-12, atol=1e-12)
        assert 0 < share < 1


def test_typical_pictures_are_near_1_and_planted_ones_far() -> None:
    features = draw(2000, 20).float()
    features[::50] += 4 * features.std(dim=0) * torch.tensor([1.0, -1.0] * 10)  # 2 %, all in one direction
    for measure in (mahalanobis, neighbour_distance):
        distance = measure(features)
        order = distance.argsort(descending=True)
        planted = torch.zeros(2000, dtype=torch.bool)
        planted[::50] = True
        if measure is mahalanobis:
            assert planted[order[:40]].all()  # all of them, before all others
            assert distance[~planted].median() == pytest.approx(1, abs=0.1)
    # Whatever the scale or the position of the features.
    torch.testing.assert_close(mahalanobis(features * 100 - 7), mahalanobis(features), rtol=1e-3, atol=1e-3)


def test_neighbours_are_the_nearest_others() -> None:
    features = draw(60, 8).float()
    features[7] = -2 * features.mean(dim=0)
    centred = (features - features.mean(dim=0)).numpy()
    table = cdist(centred, centred, "cosine")
    np.fill_diagonal(table, np.inf)
    expected = np.sort(table, axis=1)[:, :10].mean(axis=1)
    np.testing.assert_allclose(neighbour_distance(features).numpy(), expected, atol=1e-5)  # float32; observed 2e-7
    assert neighbour_distance(features[:1]).tolist() == [0]


def test_fewer_pictures_than_features_and_pictures_all_alike() -> None:
    few = mahalanobis(draw(12, 100).float())
    assert torch.isfinite(few).all()
    assert few.std() > 0
    assert torch.isfinite(mahalanobis(torch.ones(12, 5))).all()


def test_rules_drop_a_share_and_rejected_classes() -> None:
    statistics = {"outlier": np.array([1.0, 9, 2, 9, 3]), "probability": np.array([0.1, 0.2, 0.9, 0.5, 0.51])}
    config = ModelFilterConfig(model="x", drop_outliers=0.5, reject_class=(1,), max_probability=0.5)
    found = {rule: np.flatnonzero(out).tolist() for rule, out in filter_by_model(statistics, config).items()}
    assert found == {"unlike the rest": [1, 3], "of a rejected class": [2, 4]}
    none = filter_by_model({"outlier": statistics["outlier"]}, ModelFilterConfig(model="x", drop_outliers=0.0))
    assert {rule: int(out.sum()) for rule, out in none.items()} == {"unlike the rest": 0}
    for bad in (
        {"weights": Path("x")},
        {"reject_class": (1,)},
        {"model": "x", "drop_outliers": 1.0},
        {"model": "x", "max_probability": 2.0},
        {"model": "x", "reject_class": (-1,)},
    ):
        with pytest.raises(DatasetError, match="--"):
            ModelFilterConfig(**bad)


def test_every_picture_is_looked_at_once_on_white(
    write_any_set, files: tuple[dict[str, bytes], dict[str, Any]]
) -> None:
    dataset = open_dataset(DataConfig(path=str(write_any_set(*files)), resolution=8, x_flip=False, preload=False))

    def describe(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        corner = images.mean(dim=(2, 3))
        return corner, torch.stack([corner[:, 0], corner[:, 1], 1 - corner[:, :2].sum(dim=1)], dim=1)

    config = ModelFilterConfig(model="mean colour", reject_class=(0, 1))
    found = model_statistics(dataset, describe, config)
    whites = dataset.read(range(6)).composite(torch.ones(6, 3))
    np.testing.assert_allclose(found["probability"], whites.mean(dim=(2, 3))[:, :2].sum(dim=1), atol=1e-6)
    assert found["outlier"].shape == (6,)
    with pytest.raises(DatasetError, match="classes 0 to 2, got 3"):
        model_statistics(dataset, describe, ModelFilterConfig(model="x", reject_class=(3,)))
    with pytest.raises(DatasetError, match="has no classifier"):
        model_statistics(dataset, lambda images: (describe(images)[0], None), config)
    with pytest.raises(DatasetError, match="not finite"):
        model_statistics(dataset, lambda images: (describe(images)[0] * math.nan, None), ModelFilterConfig(model="x"))


def test_a_report_is_read_back_as_scores(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    write_report(path, ["a", "b"], {"outlier": np.array([1.5, 2.0])}, {"rule": np.array([False, True])})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        {"name": "a", "outlier": 1.5, "thrown out": []},
        {"name": "b", "outlier": 2, "thrown out": ["rule"]},
    ]
    assert read_scores(path, ["b", "a"], "outlier").tolist() == [2, 1.5]
    for key, content, message in (
        ("none", path.read_text(), "expected a number for 'b', got None"),
        ("outlier", "[1]\n", "every line must be an object with a name"),
        ("outlier", "{", "not valid JSON"),
    ):
        path.write_text(content)
        with pytest.raises(DatasetError, match=message):
            read_scores(path, ["b", "a"], key)
