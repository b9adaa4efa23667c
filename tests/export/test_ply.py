from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgsgan.export import PlyError, describe_ply, read_ply, read_sh_rest, write_ply
from cgsgan.types import SH_C0, Gaussians

NAMES = [
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
]


def random_scene(count: int = 50, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.rand(count, 3, generator=g) - 0.5,
        quats=torch.randn(count, 4, generator=g),
        scales=torch.rand(count, 3, generator=g) * 0.05 + 1e-4,
        opacities=torch.rand(count, generator=g) * 0.98 + 0.01,
        colors=torch.rand(count, 3, generator=g),
    )


def test_blocks_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scene, rest = random_scene(50), torch.randn(50, 8, 3)
    files = []
    for block in (7, 25, 1000):
        monkeypatch.setattr("cgsgan.export.ply.BLOCK", block)
        files.append(tmp_path / f"{block}.ply")
        assert write_ply(files[-1], scene, prune=0.5, extra_dilation=0.01, sh_rest=rest) < 50
    assert len({path.read_bytes() for path in files}) == 1


def ply_bytes(names: list[str], rows: np.ndarray, *, kind: str = "float", extra: str = "") -> bytes:
    header = f"ply\nformat binary_little_endian 1.0\n{extra}element vertex {len(rows)}\n"
    header += "".join(f"property {kind} {name}\n" for name in names) + "end_header\n"
    return header.encode() + rows.astype("<f8" if kind == "double" else "<f4").tobytes()


def valid_rows(count: int = 3) -> dict[str, np.ndarray]:
    rows = {name: np.linspace(-0.5, 0.5, count) for name in NAMES}
    rows["rot_0"] = np.ones(count)
    return rows


def covariances(scene: Gaussians) -> torch.Tensor:
    w, x, y, z = torch.nn.functional.normalize(scene.quats.double(), dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    factor = torch.stack(rows, -2) * scene.scales.double()[:, None, :]
    return factor @ factor.mT


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 40), seed=st.integers(0, 2**31), axes=st.sampled_from(["opencv", "opengl"]))
def test_round_trip(tmp_path: Path, count: int, seed: int, axes: str) -> None:
    scene = random_scene(count, seed)
    assert write_ply(tmp_path / "a.ply", scene, axes=axes, prune=0.0) == count
    back = read_ply(tmp_path / "a.ply", axes=axes)
    assert torch.equal(back.means, scene.means)
    # worst observed in 200 scenes: 1.5e-8 opacity, 1.7e-8 colour, 4.8e-7 relative scale, 2.4e-7 |q.q'|
    torch.testing.assert_close(back.opacities, scene.opacities, atol=2e-7, rtol=0)
    torch.testing.assert_close(back.colors, scene.colors, atol=2e-7, rtol=0)
    torch.testing.assert_close(back.scales, scene.scales, atol=0, rtol=2e-6)
    unit = torch.nn.functional.normalize(scene.quats, dim=-1)
    same = (back.quats * unit).sum(-1).abs()  # q and -q are one rotation
    torch.testing.assert_close(same, torch.ones(count), atol=1e-6, rtol=0)


def test_layout_is_the_inria_one(tmp_path: Path) -> None:
    scene = random_scene(5)
    write_ply(tmp_path / "a.ply", scene, axes="opengl", prune=0.0)
    data = (tmp_path / "a.ply").read_bytes()
    header, _, body = data.partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert [line.split() for line in lines if line.startswith("property")] == [["property", "float", n] for n in NAMES]
    assert len(body) == 5 * 68
    row = dict(zip(NAMES, np.frombuffer(body, "<f4").reshape(5, 17)[2].tolist()))
    assert (row["nx"], row["ny"], row["nz"]) == (0, 0, 0)
    assert row["x"] == scene.means[2, 0].item()
    assert row["f_dc_1"] == pytest.approx((scene.colors[2, 1].item() - 0.5) / SH_C0, abs=1e-6)
    p = scene.opacities[2].item()
    assert row["opacity"] == pytest.approx(math.log(p / (1 - p)), abs=1e-5)
    assert row["scale_2"] == pytest.approx(math.log(scene.scales[2, 2].item()), abs=1e-6)
    assert row["rot_0"] == pytest.approx((scene.quats[2, 0] / scene.quats[2].norm()).item(), abs=1e-6)


def test_opencv_axes_turn_the_scene_by_half_about_x(tmp_path: Path) -> None:
    scene = random_scene(20)
    write_ply(tmp_path / "a.ply", scene, axes="opencv", prune=0.0)
    stored = read_ply(tmp_path / "a.ply", axes="opengl")  # the file's own numbers
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    assert torch.equal(stored.means.double(), scene.means.double() @ turn)
    # worst observed: 7.3e-10 (scales up to 0.05 in float32)
    torch.testing.assert_close(covariances(stored), turn @ covariances(scene) @ turn, atol=3e-9, rtol=0)


def basis_without_constant(d: torch.Tensor) -> torch.Tensor:
    x, y, z = d.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    first = [-y, z, -x]
    second = [x * y, y * z, 2 * zz - xx - yy, x * z, xx - yy]
    third = [y * (3 * xx - yy), x * y * z, y * (4 * zz - xx - yy), z * (2 * zz - 3 * xx - 3 * yy)]
    third += [x * (4 * zz - xx - yy), z * (xx - yy), x * (xx - 3 * yy)]
    return torch.stack(first + second + third, dim=-1)


@pytest.mark.parametrize("coefficients", [3, 8, 15])
def test_spherical_harmonics_turn_with_the_scene(tmp_path: Path, coefficients: int) -> None:
    sh = torch.randn(20, coefficients, 3, generator=torch.Generator().manual_seed(1))
    write_ply(tmp_path / "a.ply", random_scene(20), axes="opencv", prune=0.0, sh_rest=sh)
    stored = read_sh_rest(tmp_path / "a.ply", axes="opengl")
    back = read_sh_rest(tmp_path / "a.ply", axes="opencv")
    assert stored is not None
    assert back is not None
    assert torch.equal(back, sh)
    direction = torch.nn.functional.normalize(torch.tensor([0.3, -0.7, 0.5]), dim=0)
    before = basis_without_constant(direction)[:coefficients] @ sh
    after = basis_without_constant(direction * torch.tensor([1.0, -1.0, -1.0]))[:coefficients] @ stored
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)  # worst observed 0: only signs differ
    names = [f"f_rest_{i}" for i in range(3 * coefficients)]
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    assert [line.split()[-1] for line in header.decode().splitlines() if "f_rest" in line] == names
    rows = np.frombuffer(body, "<f4").reshape(20, -1)
    assert np.array_equal(rows[:, 9 : 9 + coefficients], stored[:, :, 0].numpy())  # all red first


def test_sh_rest_is_absent_at_degree_zero(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", random_scene())
    assert read_sh_rest(tmp_path / "a.ply") is None


def test_prune_leaves_out_what_cannot_be_seen(tmp_path: Path) -> None:
    scene = replace(random_scene(4), opacities=torch.tensor([0.0, 1 / 256, 1 / 254, 1.0]))
    sh = torch.arange(4.0)[:, None, None].expand(4, 3, 3)
    assert write_ply(tmp_path / "a.ply", scene, sh_rest=sh) == 2
    rest = read_sh_rest(tmp_path / "a.ply")
    assert torch.equal(read_ply(tmp_path / "a.ply").means, scene.means[2:])
    assert rest is not None
    assert torch.equal(rest.abs(), sh[2:])
    assert write_ply(tmp_path / "a.ply", scene, prune=0.0) == 4


def test_extreme_but_legal_values_stay_finite(tmp_path: Path) -> None:
    scene = Gaussians(
        means=torch.tensor([[0.0, 0.0, 0.0], [1e30, -1e30, 0.0]]),
        quats=torch.tensor([[1e-30, 0.0, 0.0, 0.0], [1e30, 1e30, 0.0, 0.0]]),
        scales=torch.tensor([[0.0, 1e-30, 1e30], [1.0, 1.0, 1.0]]),
        opacities=torch.tensor([0.0, 1.0]),
        colors=torch.tensor([[0.0, 1.0, 7.0], [-0.5, 0.5, 1e6]]),
    )
    write_ply(tmp_path / "a.ply", scene, prune=0.0)
    back = read_ply(tmp_path / "a.ply")
    assert all(bool(tensor.isfinite().all()) for tensor in back.tensors())
    assert back.opacities[0] < 1e-6
    assert back.opacities[1] > 1 - 1e-6
    assert bool((back.scales > 0).all())
    assert back.colors[1, 0] == 0


def test_extra_dilation_adds_in_quadrature(tmp_path: Path) -> None:
    scene = random_scene(10)
    write_ply(tmp_path / "a.ply", scene, prune=0.0, extra_dilation=0.03)
    expected = (scene.scales**2 + 0.03**2).sqrt()
    torch.testing.assert_close(read_ply(tmp_path / "a.ply").scales, expected, atol=0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_gradients_are_accepted(tmp_path: Path, dtype: torch.dtype) -> None:
    scene = random_scene(6).map(lambda tensor: tensor.to(dtype).requires_grad_())
    assert write_ply(tmp_path / "a.ply", scene, prune=0.0) == 6
    assert torch.equal(read_ply(tmp_path / "a.ply").means, scene.means.detach().float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.full((50, 3), math.nan)}, "means holds 150 NaN"),
        ({"quats": torch.zeros(50, 4)}, "zero quaternion"),
        ({"scales": -torch.ones(50, 3)}, "logarithms"),
        ({"opacities": torch.zeros(50)}, "none of the 50"),
        ({"colors": torch.zeros(50, 4)}, "3 colour channels"),
    ],
)
def test_write_refuses_what_is_no_scene(tmp_path: Path, change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_ply(tmp_path / "a.ply", replace(random_scene(), **change))
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_bad_arguments(tmp_path: Path) -> None:
    scene = random_scene(4)
    batch = scene.map(lambda tensor: tensor[None])
    path = tmp_path / "a.ply"
    with pytest.raises(ValueError, match=r"scene\(i\)"):
        write_ply(path, batch)
    with pytest.raises(ValueError, match="'blender'"):
        write_ply(path, scene, axes="blender")
    with pytest.raises(ValueError, match="prune"):
        write_ply(path, scene, prune=1.5)
    with pytest.raises(ValueError, match="extra_dilation"):
        write_ply(path, scene, extra_dilation=-1.0)
    with pytest.raises(ValueError, match="sh_rest"):
        write_ply(path, scene, sh_rest=torch.zeros(4, 5, 3))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ply"
    write_ply(path, random_scene(3))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_ply(path, random_scene(9))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_other_writers_order_and_extras(tmp_path: Path, kind: str, newline: str) -> None:
    rows = valid_rows()
    names = ["curvature", *sorted(NAMES, reverse=True)]
    names = [n for n in names if not n.startswith("n")]  # normals are optional
    table = np.stack([rows.get(n, np.full(3, 9.0)) for n in names], axis=1)
    header, _, body = ply_bytes(names, table, kind=kind, extra="comment from elsewhere\n").partition(b"end_header\n")
    text = header.decode() + "end_header\n"
    (tmp_path / "a.ply").write_bytes(text.replace("\n", newline).encode() + body)
    scene = read_ply(tmp_path / "a.ply", axes="opengl")
    assert torch.equal(scene.means[:, 0], torch.linspace(-0.5, 0.5, 3))
    torch.testing.assert_close(scene.scales[:, 1], torch.linspace(-0.5, 0.5, 3).exp())
    torch.testing.assert_close(scene.opacities, torch.linspace(-0.5, 0.5, 3).sigmoid())


def test_elements_around_the_vertices_are_skipped(tmp_path: Path) -> None:
    rows = valid_rows()
    data = ply_bytes(NAMES, np.stack([rows[n] for n in NAMES], axis=1), extra="element camera 2\nproperty uchar k\n")
    header, mark, body = data.partition(b"end_header\n")
    header += b"element face 1\nproperty list uchar int vertex_indices\n"
    (tmp_path / "a.ply").write_bytes(header + mark + b"\1\2" + body + b"\3" + bytes(12))
    assert read_ply(tmp_path / "a.ply", axes="opengl").means[:, 0].tolist() == [-0.5, 0.0, 0.5]


def damaged(name: str) -> bytes:
    rows = valid_rows()
    table = np.stack([rows[n] for n in NAMES], axis=1)
    good = ply_bytes(NAMES, table)

    def with_value(column: str, value: float) -> bytes:
        changed = table.copy()
        changed[1, NAMES.index(column)] = value
        return ply_bytes(NAMES, changed)

    no_rot = [n for n in NAMES if n != "rot_3"]
    rest = [*NAMES, *(f"f_rest_{i}" for i in range(10))]
    return {
        "empty": b"",
        "not ply": b"\x89PNG\r\n" + good,
        "no end": good.split(b"end_header")[0],
        "ascii": good.replace(b"binary_little_endian", b"ascii"),
        "big endian": good.replace(b"little", b"big"),
        "no format": good.replace(b"format binary_little_endian 1.0\n", b""),
        "truncated": good[:-1],
        "longer": good + b"\0",
        "huge count": good.replace(b"vertex 3", b"vertex 999999999999"),
        "endless count": good.replace(b"vertex 3", b"vertex " + b"9" * 5000),
        "negative count": good.replace(b"vertex 3", b"vertex -3"),
        "no splats": good.replace(b"vertex 3", b"vertex 0").split(b"end_header")[0] + b"end_header\n",
        "no vertex": good.replace(b"element vertex", b"element point"),
        "missing": ply_bytes(no_rot, np.stack([rows[n] for n in no_rot], axis=1)),
        "short": ply_bytes(NAMES, table).replace(b"float opacity", b"short opacity"),
        "integer": ply_bytes(NAMES, table).replace(b"float opacity", b"int opacity"),
        "unknown type": good.replace(b"float opacity", b"half opacity"),
        "twice": good.replace(b"float nx", b"float x"),
        "list": good.replace(b"float nx", b"list uchar int nx"),
        "nan": with_value("y", math.nan),
        "inf": with_value("f_dc_0", math.inf),
        "infinite scale": with_value("scale_1", 120.0),
        "f_rest": ply_bytes(rest, np.ones((3, len(rest)))),
        "compressed": good.replace(b"element vertex", b"element chunk 0\nproperty float min_x\nelement vertex"),
        "garbage line": good.replace(b"property float nx", b"proprety float nx"),
        "property first": b"ply\nformat binary_little_endian 1.0\nproperty float x\nend_header\n",
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "first line 'ply'"),
        ("not ply", "first line 'ply'"),
        ("no end", "end_header"),
        ("ascii", "got 'ascii'"),
        ("big endian", "binary_big_endian"),
        ("no format", "binary_little_endian"),
        ("truncated", "truncated"),
        ("longer", "longer than its header says"),
        ("huge count", "999999999999 vertices"),
        ("endless count", "got 'element vertex 9999"),
        ("negative count", "got 'element vertex -3'"),
        ("no splats", "at least one splat"),
        ("no vertex", r"elements \['point'\]"),
        ("missing", "missing rot_3"),
        ("short", "longer"),
        ("integer", "int32 for opacity"),
        ("unknown type", "'half'"),
        ("twice", "'x' twice"),
        ("list", "list property"),
        ("nan", "vertex 1 has y = nan"),
        ("inf", "f_dc_0 = inf"),
        ("zero quaternion", "vertex 1 has 0 0 0 0"),
        ("infinite scale", "scale_0..2"),
        ("f_rest", "got 10"),
        ("compressed", "read_compressed_ply"),
        ("garbage line", "proprety"),
        ("property first", "property float x"),
    ],
)
def test_read_refuses_in_one_line(tmp_path: Path, name: str, message: str) -> None:
    if name == "zero quaternion":
        rows = valid_rows()
        for index in range(4):
            rows[f"rot_{index}"] = np.array([1.0, 0.0, 1.0])
        data = ply_bytes(NAMES, np.stack([rows[n] for n in NAMES], axis=1))
    else:
        data = damaged(name)
    path = tmp_path / "broken.ply"
    path.write_bytes(data)
    with pytest.raises(PlyError, match=message) as caught:
        read_ply(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "expected" in text
    assert "\n" not in text
    assert len(text) < len(str(path)) + 250


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_ply(tmp_path / "none.ply")


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_gives_nothing_but_ply_errors(tmp_path: Path, data: st.DataObject) -> None:
    rows = valid_rows(2)
    whole = bytearray(ply_bytes(NAMES, np.stack([rows[n] for n in NAMES], axis=1), extra="comment axes\n"))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    path = tmp_path / "fuzz.ply"
    path.write_bytes(bytes(whole[:cut]))
    for read in (read_ply, read_sh_rest, describe_ply):
        with suppress(PlyError):
            read(path)


def test_describe(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", random_scene(2000), prune=0.0, sh_rest=torch.zeros(2000, 8, 3))
    told = dict(describe_ply(tmp_path / "a.ply"))
    assert told["splats"] == "2,000"
    assert told["SH degree"] == "2"
    assert told["axes"] == "opencv (stated by the file)"
    low, high = (float(v) for v in told["y range"].split(" .. "))
    assert -0.5 <= low < -0.49
    assert 0.49 < high <= 0.5
    assert float(told["opacity 5/50/95 %"].split(" / ")[1]) == pytest.approx(0.5, abs=0.05)
    rows = valid_rows()
    (tmp_path / "b.ply").write_bytes(ply_bytes(NAMES, np.stack([rows[n] for n in NAMES], axis=1)))
    assert dict(describe_ply(tmp_path / "b.ply"))["axes"].startswith("unknown")
