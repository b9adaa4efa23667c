from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgsgan.export import ExportOptions
from cgsgan.export.axes import half_turn_x
from cgsgan.export.splat import ROW, importance_order, read_splat, write_splat
from tests.export.round_trips import assert_within, random_scene, read_mutated, refused

BOUNDS = {
    "means": 0.0,  # float32 as they are
    "log_scales": 0.0,
    "opacities": 0.5 / 255 + 1e-6,  # worst observed 0.0019608 = 0.5 / 255
    "colors": 0.5 / 255 + 1e-6,  # the same
    "degrees": 1.2,  # |dq| <= sqrt(3 / 4 + 1) / 128, since 1 has no byte of its own; worst observed 0.82
}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 300), seed=st.integers(0, 2**31), axes=st.sampled_from(["opencv", "opengl"]))
def test_round_trip(tmp_path: Path, count: int, seed: int, axes: str) -> None:
    scene = random_scene(count, seed)
    assert write_splat(tmp_path / "a.splat", scene, ExportOptions(axes=axes)) == count
    order = importance_order(scene.map(lambda tensor: tensor.double())).copy()
    assert_within(read_splat(tmp_path / "a.splat", axes=axes), scene.map(lambda tensor: tensor[order]), BOUNDS)


def test_layout(tmp_path: Path) -> None:
    scene = replace(random_scene(2), opacities=torch.tensor([0.2, 0.8]), scales=torch.full((2, 3), 0.01))
    write_splat(tmp_path / "a.splat", scene, ExportOptions(axes="opengl"))
    data = (tmp_path / "a.splat").read_bytes()
    assert len(data) == 64
    first = struct.unpack("<6f8B", data[:32])  # the more opaque of two of one size stands first
    assert first[:3] == tuple(scene.means[1].tolist())
    assert first[3:6] == tuple(scene.scales[1].tolist())
    assert first[6:9] == tuple(torch.round(scene.colors[1] * 255).int().tolist())
    assert first[9] == 204  # 0.8 * 255
    assert first[10:] == tuple(torch.round(scene.quats[1] * 128 + 128).int().tolist())


def test_axes_are_opencv_unless_told(tmp_path: Path) -> None:
    scene = random_scene(20)
    write_splat(tmp_path / "a.splat", scene)
    stored = read_splat(tmp_path / "a.splat", axes="opengl")
    order = importance_order(scene.map(lambda tensor: tensor.double())).copy()
    assert_within(stored, half_turn_x(scene).map(lambda tensor: tensor[order]), BOUNDS)


def test_colors_are_cut_off_at_one(tmp_path: Path) -> None:
    write_splat(tmp_path / "a.splat", replace(random_scene(4), colors=torch.full((4, 3), 1.7)))
    assert torch.equal(read_splat(tmp_path / "a.splat").colors, torch.ones(4, 3))


def damaged(kind: str, tmp_path: Path) -> bytes:
    write_splat(tmp_path / "good.splat", random_scene(4))
    good = (tmp_path / "good.splat").read_bytes()
    rows = np.frombuffer(good, ROW).copy()
    if kind == "nan":
        rows["means"][2, 1] = np.nan
    elif kind == "infinite scale":
        rows["scales"][1, 0] = np.inf
    elif kind == "negative scale":
        rows["scales"][3, 2] = -0.1
    elif kind == "zero quaternion":
        rows["quats"][1] = 128
    else:
        return {
            "empty": b"",
            "cut": good[:-1],
            "longer": good + b"\0",
            "a ply": b"ply\nformat binary".ljust(32, b"\0"),
            "a glb": b"glTF".ljust(64, b"\0"),
            "a zip": b"PK\x03\x04".ljust(64, b"\0"),
        }[kind]
    return rows.tobytes()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "splat 2 has means ="),
        ("infinite scale", "splat 1 has scales = inf"),
        ("negative scale", "splat 3 has scales ="),
        ("zero quaternion", "splat 1 has quats = 0 0 0 0"),
        ("empty", "at least 32 bytes, the file has 0"),
        ("cut", "multiple of 32 bytes (one splat each), the file has 127"),
        ("longer", "the file has 129"),
        ("a ply", "this is a .ply"),
        ("a glb", "this is a .glb"),
        ("a zip", "this is a .sog"),
    ],
)
def test_refuses_in_one_line(tmp_path: Path, kind: str, message: str) -> None:
    assert message in refused(tmp_path / "broken.splat", damaged(kind, tmp_path))


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_gives_nothing_but_the_named_error(
    tmp_path: Path, good_files: dict[str, bytes], data: st.DataObject
) -> None:
    read_mutated(tmp_path / "a.splat", good_files[".splat"], data)
