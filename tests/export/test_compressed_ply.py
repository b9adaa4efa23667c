from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgsgan.export import ExportOptions, PlyError, ViewDependentColorWarning, read_splats
from cgsgan.export.axes import half_turn_x
from cgsgan.export.compressed_ply import CHUNK, read_compressed_ply, write_compressed_ply
from cgsgan.export.packing import morton_order
from cgsgan.types import Gaussians
from tests.export.round_trips import assert_within, random_scene, read_mutated, refused


def in_file_order(scene: Gaussians, axes: str) -> Gaussians:
    turned = half_turn_x(scene) if axes == "opencv" else scene
    order = morton_order(turned.means.double().numpy()).copy()
    return scene.map(lambda tensor: tensor[order])


def half_steps(values: torch.Tensor, steps: list[float]) -> float:
    """Half a level of the coarsest chunk, for channels with so many levels each."""
    ranges = [chunk.amax(dim=0) - chunk.amin(dim=0) for chunk in values.split(CHUNK)]
    return (torch.stack(ranges) / torch.tensor(steps) / 2).max().item() * (1 + 1e-3) + 1e-6


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 1000), seed=st.integers(0, 2**31), axes=st.sampled_from(["opencv", "opengl"]))
def test_round_trip(tmp_path: Path, count: int, seed: int, axes: str) -> None:
    scene = in_file_order(random_scene(count, seed), axes)
    assert write_compressed_ply(tmp_path / "a.compressed.ply", scene, ExportOptions(axes=axes)) == count
    # Worst observed of 256 in the unit cube: 0.00048, 0.0029, 0.00196, 0.00195 (bounds 0.00049, 0.0029, 0.00196,
    # 0.00196) and 0.19 degrees; rotations: |dq| <= 2 sqrt(3) (sqrt(2) / 1023 / 2).
    bounds = {
        "means": half_steps(scene.means, [2047, 1023, 2047]),
        "log_scales": half_steps(scene.scales.log(), [2047, 1023, 2047]),
        "opacities": 0.5 / 255 + 1e-6,
        "colors": half_steps(scene.colors, [255, 255, 255]),
        "degrees": math.degrees(2 * 2 * 3**0.5 * 2**0.5 / 1023 / 2),
    }
    assert_within(read_compressed_ply(tmp_path / "a.compressed.ply", axes=axes), scene, bounds)


def test_layout_and_size(tmp_path: Path) -> None:
    write_compressed_ply(tmp_path / "a.compressed.ply", random_scene(600))
    header, _, body = (tmp_path / "a.compressed.ply").read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[3] == "element chunk 3"
    assert lines[4:7] == ["property float min_x", "property float min_y", "property float min_z"]
    assert lines[19:22] == ["property float max_r", "property float max_g", "property float max_b"]
    assert lines[22:] == ["element vertex 600"] + [
        f"property uint packed_{name}" for name in ("position", "rotation", "scale", "color")
    ]
    assert len(body) == 3 * 18 * 4 + 600 * 16


def test_equal_splats_and_bright_colors(tmp_path: Path) -> None:
    one = replace(random_scene(1), colors=torch.tensor([[1.7, 0.0, 0.5]]))
    scene = one.map(lambda tensor: tensor.expand(300, *tensor.shape[1:]))
    write_compressed_ply(tmp_path / "a.compressed.ply", scene)
    exact = {"means": 1e-6, "log_scales": 2e-6, "opacities": 0.002, "colors": 1e-6, "degrees": 0.28}
    assert_within(read_compressed_ply(tmp_path / "a.compressed.ply"), scene, exact)


def test_a_ply_is_known_as_compressed_by_its_header(tmp_path: Path) -> None:
    scene = in_file_order(random_scene(40), "opengl")
    write_compressed_ply(tmp_path / "a.compressed.ply", scene, ExportOptions(axes="opengl"))
    (tmp_path / "a.compressed.ply").rename(tmp_path / "b.ply")
    assert (read_splats(tmp_path / "b.ply").means - scene.means).abs().max() < 1e-3  # and its axes are stated in it


def with_sh(data: bytes, count: int, properties: int, rows: int) -> bytes:
    declared = f"element sh {rows}\n" + "".join(f"property uchar f_rest_{i}\n" for i in range(properties))
    header, end, body = data.partition(b"end_header\n")
    return header + declared.encode() + end + body + bytes(count * properties)


def test_view_dependent_color_is_dropped_and_told(tmp_path: Path) -> None:
    write_compressed_ply(tmp_path / "a.compressed.ply", random_scene(5))
    before = read_splats(tmp_path / "a.compressed.ply")
    data = with_sh((tmp_path / "a.compressed.ply").read_bytes(), 5, 24, 5)
    (tmp_path / "a.compressed.ply").write_bytes(data)
    with pytest.warns(ViewDependentColorWarning, match=r"a\.compressed\.ply: .* degree 1 to 2 are dropped"):
        after = read_splats(tmp_path / "a.compressed.ply")
    assert all(torch.equal(a, b) for a, b in zip(before.tensors(), after.tensors()))


def test_chunks_without_bounds_of_color(tmp_path: Path) -> None:
    scene = in_file_order(random_scene(5), "opencv")
    write_compressed_ply(tmp_path / "a.compressed.ply", scene)
    data = (tmp_path / "a.compressed.ply").read_bytes()
    header, end, body = data.partition(b"end_header\n")
    old = re.sub(rb"property float (min|max)_[rgb]\n", b"", header) + end + body[: 12 * 4] + body[18 * 4 :]
    (tmp_path / "old.compressed.ply").write_bytes(old)
    levels = np.frombuffer(body[18 * 4 :], "<u4").reshape(5, 4)[:, 3]
    colors = read_splats(tmp_path / "old.compressed.ply").colors.numpy()
    np.testing.assert_allclose(colors[:, 0], (levels >> 24) / 255, atol=1e-6)  # worst observed 3e-8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"element chunk 1", b"element chunk 2", "truncated"),
        (b"element vertex 5", b"element vertex 4", "longer than its header says"),
        (b"element vertex 5", b"element vertex 99999999999999", "99999999999999 vertices"),
        (b"uint packed_rotation", b"uint packed_rotatiom", "missing packed_rotation"),
        (b"uint packed_color", b"float packed_color", "expected u4 for packed_color, got float32"),
        (b"float min_scale_y", b"int min_scale_y", "expected f4 for min_scale_y"),
        (b"float max_b", b"float max_c", "missing max_b"),
        (b"element vertex 5", b"element vertices 5", "got ['chunk', 'vertices']"),
        (b"element vertex 5", b"element chunk 5", "every element once"),
    ],
)
def test_refuses_in_one_line(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = tmp_path / "a.compressed.ply"
    write_compressed_ply(path, random_scene(5))
    data = path.read_bytes()
    assert old in data
    assert message in refused(path, data.replace(old, new))


def test_refuses_numbers_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.compressed.ply"
    write_compressed_ply(path, random_scene(5))
    header, end, body = path.read_bytes().partition(b"end_header\n")
    bounds = np.frombuffer(body[:72], "<f4").copy()
    for place, value, message in (
        (1, np.nan, "means"),
        (9, 1e30, "scales"),
        (15, np.inf, "colors"),
    ):
        changed = bounds.copy()
        changed[place] = value
        assert f"has {message} = " in refused(path, header + end + changed.tobytes() + body[72:])
    two_chunks = (header + end).replace(b"chunk 1", b"chunk 2") + body[:72] * 2 + body[72:]
    assert "5 splats and 2 chunks" in refused(path, two_chunks)
    none = (header + end).replace(b"chunk 1", b"chunk 0").replace(b"vertex 5", b"vertex 0")
    assert "at least one splat" in refused(path, none)
    assert "element sh" in refused(path, with_sh(header + end + body, 5, 10, 5))
    with pytest.raises(PlyError, match="elements chunk and vertex"):
        read_compressed_ply(write_plain(tmp_path))


def write_plain(tmp_path: Path) -> Path:
    from cgsgan.export import write_ply

    write_ply(tmp_path / "plain.ply", random_scene(3))
    return tmp_path / "plain.ply"


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_gives_nothing_but_the_named_error(
    tmp_path: Path, good_files: dict[str, bytes], data: st.DataObject
) -> None:
    read_mutated(tmp_path / "a.compressed.ply", good_files[".compressed.ply"], data)
