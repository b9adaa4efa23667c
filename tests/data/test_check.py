from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cgsgan.data.check import check_dataset

Files = tuple[dict[str, bytes], dict[str, Any]]


def test_good_set_has_no_problems(write_set: Callable[..., Path], files: Files) -> None:
    contents, labels = files
    report = check_dataset(write_set(contents | {"spare.png": contents["00000/img0000.png"]}, labels))
    assert report.problems == ()
    summary = report.summary
    assert (summary.labels, summary.pictures, summary.size, summary.modes) == (6, 6, 8, {"RGBA": 6})
    assert summary.unlabeled == 1
    assert summary.yaw is not None
    assert summary.pitch is not None
    np.testing.assert_allclose(summary.yaw, np.rad2deg([-0.9, 0.9]), atol=1e-3)
    np.testing.assert_allclose(summary.pitch, np.rad2deg([-0.3, 0.2]), atol=1e-3)


def test_all_problems_are_counted_at_once(
    write_set: Callable[..., Path], files: Files, encode_image: Callable[..., bytes]
) -> None:
    contents, labels = files
    entries = labels["labels"]
    good = entries[0][1]
    entries[0][1] = good[:24]
    entries[1][1] = [*good[:3], float("nan"), *good[4:]]
    entries += [[f"gone{i}.png", good] for i in range(5)]
    entries += [["../out.png", good], ["b.gif", good], ["00000/img0005.png", good]]
    contents["b.gif"] = b"GIF89a"
    contents["00000/img0002.png"] = contents["00000/img0002.png"][:100]
    contents["00000/img0003.png"] = encode_image(np.zeros((8, 9, 3), np.uint8))
    contents["00000/img0004.png"] = encode_image(np.zeros((16, 16, 3), np.uint8))
    contents["mask/img0000.png"] = encode_image(np.zeros((8, 8), np.uint8))
    report = check_dataset(write_set(contents, labels), mask_folder="mask")
    found = {problem.kind: (problem.count, problem.examples) for problem in report.problems}
    image = "00000/img000{}.png".format
    assert found == {
        "label: expected 25 numbers, got 24 numbers": (1, (image(0),)),
        "label: it holds NaN or infinity": (1, (image(1),)),
        "picture labelled more than once": (1, (image(5),)),
        "name points outside the data set": (1, ("../out.png",)),
        "picture missing": (5, ("gone0.png", "gone1.png", "gone2.png")),
        "unknown file type": (1, ("b.gif",)),
        "mask missing": (6, (image(1), image(2), image(3))),
        "picture cannot be decoded": (1, (image(2),)),
        "picture not square": (1, (image(3),)),
        "size differs from the common one (8 px)": (1, (image(4),)),
    }
    assert str(next(p for p in report.problems if p.kind == "picture missing")) == (
        "5 x picture missing: gone0.png, gone1.png, gone2.png, ..."
    )


def test_a_set_that_cannot_be_opened_is_one_problem(tmp_path: Path) -> None:
    (problem,) = check_dataset(tmp_path / "none").problems
    assert problem.kind == "data set cannot be read"
    assert "no such data set" in problem.examples[0]


def test_cameras_that_cannot_see_a_head_are_counted(write_set: Callable[..., Path], files: Files) -> None:
    contents, labels = files
    entries = labels["labels"]
    entries[0][1] = [*entries[0][1][:3], 50.0, *entries[0][1][4:]]
    behind = list(entries[1][1])
    for index in (3, 7, 11):
        behind[index] = -behind[index]
    entries[1][1] = behind
    found = {problem.kind: problem.count for problem in check_dataset(write_set(contents, labels)).problems}
    assert found == {
        "camera: not 1 to 10 world units from the origin (the format has 2.7)": 1,
        "camera: does not look at the origin (more than 20 degrees off)": 1,
    }
