"""Statistics, filtering and rebalancing, and that training reads the lists they make."""

from __future__ import annotations

import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cgsgan.cameras import orbit
from cgsgan.cli import main
from cgsgan.data import DataConfig, DatasetError, open_dataset
from cgsgan.data.histograms import histogram_sheet
from cgsgan.data.selection import FilterConfig, RebalanceConfig, filter_pictures, read_scores, rebalance
from cgsgan.data.statistics import camera_statistics, picture_statistics

SIZE = 32


def head(centre: tuple[float, float] = (0.5, 0.5), radius: float = 0.3, grey: int = 128) -> np.ndarray:
    place = (np.arange(SIZE) + 0.5) / SIZE
    inside = (place[None] - centre[0]) ** 2 + (place[:, None] - centre[1]) ** 2 < radius**2
    pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
    pixels[inside] = (grey, grey, grey, 255)
    return pixels


@pytest.fixture
def write_heads(tmp_path: Path, encode_image: Callable[..., bytes]):
    def write(pictures: list[np.ndarray], yaws: list[float]) -> str:
        labels = orbit(torch.tensor(yaws), torch.zeros(len(yaws))).to_labels().tolist()
        path = tmp_path / "heads.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for i, picture in enumerate(pictures):
                archive.writestr(f"{i}.png", encode_image(picture))
            archive.writestr("dataset.json", json.dumps({"labels": [[f"{i}.png", x] for i, x in enumerate(labels)]}))
        return str(path)

    return write


def opened(path: str):
    return open_dataset(DataConfig(path=path, resolution=SIZE, x_flip=False, preload=False))


def test_statistics_of_known_pictures(write_heads) -> None:
    checker = head(radius=2)
    checker[::2, ::2, :3] = 0
    pictures = [head(), head((0.7, 0.5), radius=0.2), head(radius=2, grey=255), checker]
    dataset = opened(write_heads(pictures, [0.0, 0.5, -0.5, 0.25]))
    cameras, found = camera_statistics(dataset), picture_statistics(dataset)
    # Labels are float32; observed 2e-6 degrees.
    np.testing.assert_allclose(cameras["yaw"], np.rad2deg([0.0, 0.5, -0.5, 0.25]), atol=1e-4)
    np.testing.assert_allclose(cameras["distance"], 2.7, atol=1e-5)
    np.testing.assert_allclose(cameras["field of view"], np.rad2deg(2 * math.atan(0.5 / 4.2647)), atol=1e-4)
    # Discs counted by pixel; observed 0.004 from the area.
    np.testing.assert_allclose(found["coverage"][:3], [math.pi * 0.09, math.pi * 0.04, 1], atol=0.01)
    np.testing.assert_allclose(found["off-centre"], [0, 0.2, 0, 0], atol=0.01)
    np.testing.assert_allclose(found["border"], [0, 0, 1, 1], atol=1e-12)
    np.testing.assert_allclose(found["brightness"][:3], [128 / 255, 128 / 255, 1], atol=1e-6)
    assert found["sharpness"][0] == found["sharpness"][2] == 0
    assert found["sharpness"][3] > 0.3


def test_filtering_names_its_reasons(write_heads) -> None:
    pictures = [head(), head((0.8, 0.5)), head(radius=2), head(radius=0.05), head()]
    found = picture_statistics(opened(write_heads(pictures, [0.0] * 5)))
    scores = np.array([1.0, 1, 1, 1, math.nan])
    thrown = filter_pictures(found, FilterConfig(min_score=0.5), scores)
    reasons = {rule: np.flatnonzero(out).tolist() for rule, out in thrown.items()}
    assert reasons == {
        "too little of the picture": [3],
        "too much of the picture": [2],
        "touches the border": [2],
        "off-centre": [1],
        "low score": [4],
    }


def skewed_yaws(count: int = 4000) -> np.ndarray:
    return np.clip(np.random.default_rng(0).normal(0, 12, count), -45, 45)


def test_rebalancing_flattens_skewed_poses() -> None:
    yaw = skewed_yaws()
    edges = np.linspace(yaw.min(), yaw.max(), 11)

    def spread(values: np.ndarray) -> float:
        """Fullest over emptiest tenth."""
        counts = np.histogram(values, edges)[0]
        return counts.max() / counts.min()

    half = rebalance(yaw, RebalanceConfig(bins=10, power=0.5, max_repeats=1000))
    full = rebalance(yaw, RebalanceConfig(bins=10, power=1.0, max_repeats=1000))
    assert spread(yaw) > 100
    assert spread(yaw[half]) == pytest.approx(math.sqrt(spread(yaw)), rel=0.05)
    assert spread(yaw[full]) < 1.01
    assert set(full) == set(range(len(yaw)))
    assert np.array_equal(full, rebalance(yaw, RebalanceConfig(bins=10, power=1.0, max_repeats=1000)))


def test_repeats_are_limited_and_power_0_does_nothing() -> None:
    yaw = skewed_yaws()
    assert max(Counter(rebalance(yaw, RebalanceConfig(power=1.0, max_repeats=5)).tolist()).values()) == 5
    assert rebalance(yaw, RebalanceConfig(power=0.0)).tolist() == list(range(len(yaw)))
    assert rebalance(np.ones(7), RebalanceConfig(power=1.0)).tolist() == list(range(7))
    both = np.concatenate([yaw, -yaw])
    counts = np.bincount(rebalance(both, RebalanceConfig(symmetric=True)))
    assert abs(int(counts[: len(yaw)].sum()) - int(counts[len(yaw) :].sum())) <= 20  # one rounding for each bin
    with pytest.raises(DatasetError, match="no finite value"):
        rebalance(np.array([0.0, math.nan]), RebalanceConfig())
    with pytest.raises(DatasetError, match="--bins"):
        RebalanceConfig(bins=0)


def test_the_commands_make_lists_that_training_reads(
    write_heads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_heads([head(), head((0.9, 0.5)), *[head()] * 8], [0.0] * 9 + [0.9])
    kept, list_, smile = (tmp_path / name for name in ("kept.json", "list.json", "smile.json"))
    assert main(["data", "filter", path, "--out", str(kept), "--resolution", "32"]) == 0
    assert json.loads(kept.read_text()) == ["0.png", *[f"{i}.png" for i in range(2, 10)]]
    rest = ["--out", str(list_), "--index-list", str(kept), "--power", "1.0", "--bins", "4"]
    assert main(["data", "rebalance", path, *rest, "--sheet", str(tmp_path / "s.png")]) == 0
    dataset = open_dataset(DataConfig(path=path, resolution=SIZE, x_flip=False, index_list=str(list_)))
    assert Counter(dataset.names) == {"0.png": 1, **{f"{i}.png": 1 for i in range(2, 9)}, "9.png": 8}
    smile.write_text(json.dumps({f"{i}.png": float(i == 3) for i in range(10)}))
    assert main(["data", "rebalance", path, "--out", str(list_), "--by", str(smile), "--power", "1.0"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["data", "rebalance", path, *rest[:2], "--by", str(smile), "--power", "1.0", "--overwrite"]) == 0
    assert Counter(json.loads(list_.read_text()))["3.png"] == 9
    assert main(["data", "stats", path, "--out", str(tmp_path / "stats.png"), "--resolution", "32"]) == 0
    assert "coverage" in capsys.readouterr().out
    assert (tmp_path / "stats.png").stat().st_size > 1000


def test_attributes_and_poses_together_of_what_a_filter_kept(write_heads, tmp_path: Path) -> None:
    """A smile is measured for the kept pictures only; its list is then balanced over yaw, and training reads it."""
    path = write_heads([head()] * 10, [0.0] * 8 + [0.9, 0.9])
    kept, smile, by_smile, both = (tmp_path / name for name in ("kept.json", "smile.json", "a.json", "b.json"))
    kept.write_text(json.dumps([f"{i}.png" for i in range(1, 10)]))
    smile.write_text(json.dumps({f"{i}.png": float(i in (1, 9)) for i in range(1, 10)}))
    rest = ["--power", "1.0", "--bins", "2"]
    command = ["data", "rebalance", path, *rest]
    assert main([*command, "--by", str(smile), "--index-list", str(kept), "--out", str(by_smile)]) == 0
    counts = Counter(json.loads(by_smile.read_text()))
    assert counts["1.png"] + counts["9.png"] == sum(counts[f"{i}.png"] for i in range(2, 9)) == 7
    assert main([*command, "--by", "yaw", "--index-list", str(by_smile), "--out", str(both)]) == 0
    dataset = open_dataset(DataConfig(path=path, resolution=SIZE, x_flip=False, index_list=str(both)))
    yaw = camera_statistics(dataset)["yaw"]
    assert abs(int((yaw > 10).sum()) - int((yaw < 10).sum())) <= 1
    assert set(dataset.names) == {f"{i}.png" for i in range(1, 10)}
    assert main([*command, "--by", str(smile), "--out", str(tmp_path / "c.json")]) == 2  # 0.png has no number
    assert main([*command, "--by", "smile", "--out", str(tmp_path / "c.json")]) == 2


def test_scores_must_name_every_picture(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    for content in ('{"a": 1}', '{"a": 1, "b": "x"}', "[1]", "{"):
        path.write_text(content)
        with pytest.raises(DatasetError, match=r"scores\.json"):
            read_scores(path, ["a", "b"])


def test_bars_are_as_high_as_the_counts() -> None:
    values = np.repeat([0.0, 1.0], [10, 5])
    sheet = np.asarray(histogram_sheet({"x": [values]}, {}))
    blue = (sheet == (70, 110, 170)).all(axis=2).sum(axis=0)
    heights = [int(h) for h in blue if h]
    # One pixel of each bar is covered by the axis.
    assert (heights[0] + 1) == pytest.approx(2 * (heights[-1] + 1), abs=2)
