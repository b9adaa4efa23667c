from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cgsgan.cameras import Cameras, orbit
from cgsgan.data.errors import DatasetError
from cgsgan.data.labels import check_labels, flip_labels, label_problem, parse_label_file

HERE = Path("set.zip")
ANGLES = st.tuples(st.floats(-1.4, 1.4), st.floats(-1.2, 1.2))


def label_of(yaw: float, pitch: float, cx: float = 0.5) -> Tensor:
    label = orbit(torch.tensor(yaw), torch.tensor(pitch)).to_labels()
    label[18] = cx
    return label


def project(label: Tensor, point: Tensor) -> Tensor:
    cameras = Cameras.from_labels(label.double())
    seen = cameras.viewmats[:3, :3] @ point + cameras.viewmats[:3, 3]
    pixel = cameras.Ks_normalized @ seen
    return pixel[:2] / pixel[2]


@given(angles=ANGLES, cx=st.floats(0.3, 0.7), point=st.tuples(*[st.floats(-0.5, 0.5)] * 3))
@settings(deadline=None)
def test_flipped_camera_sees_the_mirrored_point_at_the_mirrored_pixel(
    angles: tuple[float, float], cx: float, point: tuple[float, float, float]
) -> None:
    label = label_of(*angles, cx=cx)
    here = torch.tensor(point, dtype=torch.float64)
    there = here * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    seen, mirrored = project(label, here), project(flip_labels(label), there)
    # Worst observed 1.2e-7 (cx -> 1 - cx in float32).
    assert math.isclose(float(mirrored[0]), 1 - float(seen[0]), abs_tol=1e-6)
    assert math.isclose(float(mirrored[1]), float(seen[1]), abs_tol=1e-6)


@given(angles=ANGLES, cx=st.floats(0.3, 0.7))
@settings(deadline=None)
def test_flipping_twice_changes_nothing_and_once_stays_rigid(angles: tuple[float, float], cx: float) -> None:
    label = label_of(*angles, cx=cx)
    torch.testing.assert_close(flip_labels(flip_labels(label)), label, atol=1e-7, rtol=0)
    assert label_problem(flip_labels(label).tolist()) is None


@given(angles=ANGLES)
@settings(deadline=None)
def test_labels_survive_json(angles: tuple[float, float]) -> None:
    label = label_of(*angles).tolist()
    content = json.dumps({"labels": [["a.png", label]]}).encode()
    pairs = parse_label_file(content, HERE)
    assert pairs == [("a.png", label)]
    assert check_labels(pairs, HERE)[0].tolist() == label
    assert parse_label_file(json.dumps({"a.png": label}).encode(), HERE) == pairs


@given(content=st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_give_one_clear_error(content: bytes) -> None:
    # No random bytes are a label file with at least one well-formed entry.
    with pytest.raises(DatasetError, match=r"^set.zip: dataset.json") as caught:
        parse_label_file(content, HERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[1]", 'set.zip: dataset.json must be an object {"labels": [[name, 25 numbers], ...]}'),
        ('{"labels": null}', 'set.zip: dataset.json has "labels": null; every image needs a label of 25 numbers'),
        ('{"labels": []}', "set.zip: dataset.json names no images: the data set is empty"),
        ('{"labels": [["a.png"]]}', 'set.zip: dataset.json: entry 0 must be [name, 25 numbers], got ["a.png"]'),
        ('{"labels": 3}', 'set.zip: dataset.json: "labels" must be a list of [name, 25 numbers], got int'),
    ],
)
def test_malformed_label_files_are_refused(document: str, message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        parse_label_file(document.encode(), HERE)
    assert str(caught.value) == message


RIGID = "the pose is not rigid (rotation not orthonormal and right-handed, or last row not 0 0 0 1)"
INTRINSICS = "the intrinsics must be divided by the image size (0 < focal < 50, last row 0 0 1)"


@pytest.mark.parametrize(
    ("position", "value", "fault"),
    [
        (3, math.nan, "it holds NaN or infinity"),
        (16, math.inf, "it holds NaN or infinity"),
        (0, 0.7, RIGID),
        (12, 0.1, RIGID),
        (16, 2985.29, INTRINSICS),
        (20, -4.2647, INTRINSICS),
        (24, 0.0, INTRINSICS),
    ],
)
def test_bad_numbers_are_named(position: int, value: float, fault: str) -> None:
    good = label_of(0.3, 0.1).tolist()
    bad = list(good)
    bad[position] = value
    assert label_problem(bad) == fault
    with pytest.raises(DatasetError) as caught:
        check_labels([("a.png", good), ("b.png", bad)], HERE)
    assert str(caught.value) == f"set.zip: label of 'b.png': {fault}"


def test_a_mirrored_rotation_is_not_rigid() -> None:
    bad = label_of(0.3, 0.1)
    bad[[0, 4, 8]] *= -1
    assert label_problem(bad.tolist()) == RIGID


@pytest.mark.parametrize("numbers", [[0.0] * 24, "text", ["1"] * 25, [True] * 25, [10**400] * 25])
def test_labels_that_are_not_25_numbers_are_refused(numbers: object) -> None:
    with pytest.raises(DatasetError, match=r"set.zip: label of 'a.png': expected (25 )?numbers"):
        check_labels([("a.png", numbers)], HERE)
