"""What holds for every format; and files that @playcanvas/splat-transform 2.7.1 made of eight of our Gaussians."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import tracemalloc
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cgsgan.export import (
    ExportOptions,
    SplatFileError,
    ViewDependentColorWarning,
    convert_splats,
    describe_splats,
    read_splats,
    write_splats,
)
from cgsgan.export.formats import FORMATS
from cgsgan.types import Gaussians
from tests.export.round_trips import random_scene, refused, worst_errors

MADE = Path(__file__).parent / "splat_transform"
SUFFIXES = list(FORMATS)
COARSEST = {"means": 5e-4, "log_scales": 0.04, "opacities": 0.004, "colors": 0.004, "degrees": 1.6}
"""Of all formats; each has its own bounds in its own tests."""


def matched(back: Gaussians, scene: Gaussians) -> Gaussians:
    """The splats of ``back`` in the order of ``scene``, each with the quaternion of the same ellipsoid that is nearest.

    Half-turns about an ellipsoid's own axes do not change it.
    """
    nearest = torch.cdist(scene.means.double(), back.means.double()).argmin(dim=1)
    back = back.map(lambda tensor: tensor[nearest])
    w, x, y, z = back.quats.unbind(-1)
    turned = torch.stack([back.quats, *(torch.stack(q, -1) for q in ((-x, w, z, -y), (-y, -z, w, x), (-z, y, -x, w)))])
    best = (turned * scene.quats).sum(dim=-1).abs().argmax(dim=0)
    return replace(back, quats=turned[best, torch.arange(len(best))])


def assert_same(back: Gaussians, scene: Gaussians, bounds: dict[str, float] = COARSEST) -> None:
    assert back.count == scene.count
    for name, worst in worst_errors(matched(back, scene), scene).items():
        assert worst <= bounds[name], (name, worst)


# Its SOG of so few splats has a coarse codebook and cuts off where we round; it reads the same numbers from it.
LOOSE = {**COARSEST, "log_scales": 0.05, "colors": 0.02}


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("plain.ply", {**COARSEST, "means": 0.0, "colors": 1e-6, "degrees": 1e-3}),
        ("plain.compressed.ply", {**COARSEST, "degrees": 0.28}),  # worst observed 0.12 degrees
        ("plain_3.spz", {**COARSEST, "degrees": 0.28}),  # 0.14
        ("plain_4.spz", {**COARSEST, "degrees": 0.28}),  # 0.14
        ("plain.sog", LOOSE),  # 0.042, 0.0037, 0.016, 0.98 degrees
    ],
)
def test_reads_what_splat_transform_writes(name: str, bounds: dict[str, float]) -> None:
    if name == "plain_4.spz":
        pytest.importorskip("zstandard")
    assert_same(read_splats(MADE / name), read_splats(MADE / "truth.ply"), bounds)


def test_reads_the_gltf_of_splat_transform() -> None:
    scene = read_splats(MADE / "truth.ply")
    back = read_splats(MADE / "plain.glb")
    # It writes a PLY in OpenCV axes with the face to -z, where glTF has +z as the front: half a turn about y.
    turned = scene.means * torch.tensor([-1.0, 1.0, -1.0])
    assert torch.equal(back.means, turned)
    torch.testing.assert_close(back.scales, scene.scales, atol=0, rtol=2e-6)
    torch.testing.assert_close(back.colors, scene.colors, atol=1e-6, rtol=0)


@pytest.mark.parametrize("suffix", [".compressed.ply", ".sog", ".glb", "_3.spz", "_4.spz"])
def test_reads_harmonics_of_splat_transform_without_them(suffix: str) -> None:
    if suffix == "_4.spz":
        pytest.importorskip("zstandard")
    with pytest.warns(ViewDependentColorWarning, match="degree 1 to 2"):
        back = read_splats(MADE / f"harmonics{suffix}")
    plain = read_splats(MADE / f"plain{suffix}")
    assert (matched(back, plain).colors - plain.colors).abs().max() < 0.02  # .sog has another codebook


@pytest.mark.parametrize("source", SUFFIXES)
@pytest.mark.parametrize("target", SUFFIXES)
def test_from_each_to_each(tmp_path: Path, source: str, target: str) -> None:
    scene = random_scene(30)
    write_splats(tmp_path / f"a{source}", scene)
    assert convert_splats(tmp_path / f"a{source}", tmp_path / f"b{target}") == 30
    twice = {name: 2 * bound for name, bound in COARSEST.items()}
    assert_same(read_splats(tmp_path / f"b{target}"), scene, twice)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_options_of_every_format(tmp_path: Path, suffix: str) -> None:
    scene = replace(random_scene(4), opacities=torch.tensor([0.0, 1 / 256, 1 / 254, 1.0]))
    path = tmp_path / "new" / f"a{suffix}"
    assert write_splats(path, scene) == 2
    assert write_splats(path, scene, ExportOptions(prune=0.5)) == 1
    assert write_splats(path, scene, ExportOptions(prune=0.0, extra_dilation=0.05)) == 4
    back = matched(read_splats(path), scene)
    torch.testing.assert_close(
        back.scales, torch.hypot(scene.scales, torch.tensor(0.05)), atol=0, rtol=0.04
    )  # spz: 1/32
    write_splats(path, scene, ExportOptions(prune=0.0, axes="opengl"))
    assert (matched(read_splats(path, axes="opengl"), scene).means - scene.means).abs().max() < 5e-4
    turned = read_splats(path, axes="opencv").means * torch.tensor([1.0, -1.0, -1.0])
    assert torch.cdist(turned, scene.means).min(dim=0).values.max() < 1e-3
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.full((3, 3), math.nan)}, "means holds 9 NaN"),
        ({"means": torch.full((3, 3), 1e39, dtype=torch.float64)}, "means holds 9 NaN or Inf"),
        ({"quats": torch.zeros(3, 4)}, "zero quaternion"),
        ({"scales": -torch.ones(3, 3)}, "logarithms"),
        ({"opacities": torch.zeros(3)}, "none of the 3"),
        ({"colors": torch.zeros(3, 4)}, "3 colour channels"),
        ({"axes": "blender"}, "'blender'"),
        ({"prune": 1.5}, "prune"),
        ({"extra_dilation": -1.0}, "extra_dilation"),
    ],
)
def test_writers_refuse_what_is_no_scene(tmp_path: Path, suffix: str, change: dict, message: str) -> None:
    fields = {name: value for name, value in change.items() if isinstance(value, torch.Tensor)}
    options = ExportOptions(**{name: value for name, value in change.items() if name not in fields})
    with pytest.raises(ValueError, match=message):
        write_splats(tmp_path / f"a{suffix}", replace(random_scene(3), **fields), options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{suffix}"
    write_splats(path, random_scene(3))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_splats(path, random_scene(9))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("other", SUFFIXES)
def test_a_file_of_another_format_is_refused(
    tmp_path: Path, good_files: dict[str, bytes], suffix: str, other: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(good_files[other])
    same = suffix == other or {suffix, other} == {".glb", ".gltf"} or (suffix, other) == (".ply", ".compressed.ply")
    if same:
        assert read_splats(path).count == 3
    else:
        with pytest.raises(SplatFileError, match="expected"):
            read_splats(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_describe(tmp_path: Path, suffix: str) -> None:
    write_splats(tmp_path / f"a{suffix}", random_scene(200), ExportOptions(prune=0.0))
    told = dict(describe_splats(tmp_path / f"a{suffix}"))
    assert told["format"] == FORMATS[suffix].name
    assert told["splats"] == "200"
    assert told["axes"].split()[0] == ("opengl" if suffix in (".spz", ".glb", ".gltf", ".html") else "opencv")
    low, high = (float(v) for v in told["x range"].split(" .. "))
    assert low == pytest.approx(-0.4858, abs=1e-3)
    assert high == pytest.approx(0.4971, abs=1e-3)


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply"])
def test_unknown_axes_in_a_header_are_refused_unless_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_splats(path, random_scene(3))
    path.write_bytes(path.read_bytes().replace(b"axes opencv", b"axes openvc"))
    with pytest.raises(SplatFileError, match="opencv or opengl as the axes in its header, got 'openvc'"):
        read_splats(path)
    assert read_splats(path, axes="opencv").count == 3


def lying(suffix: str, data: bytes) -> bytes:
    """The file of three splats, of which its header says that they are very many."""
    if suffix.endswith(".ply"):
        return data.replace(b"vertex 3", b"vertex 300000000").replace(b"chunk 1", b"chunk 1171875")
    if suffix == ".spz":
        flat = bytearray(gzip.decompress(data))
        flat[8:12] = struct.pack("<I", 300_000_000)
        return gzip.compress(bytes(flat))
    if suffix == ".sog":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content.replace(b'"count": 3', b'"count": 300000000'))
        return out.getvalue()
    return data.replace(b'"count": 3', b'"count": 300000000').replace(b'"count":3', b'"count":9')


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".splat"])  # which has no header
def test_a_header_that_lies_costs_no_memory(tmp_path: Path, good_files: dict[str, bytes], suffix: str) -> None:
    data = lying(suffix, good_files[suffix])
    assert data != good_files[suffix]
    tracemalloc.start()
    refused(tmp_path / f"a{suffix}", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000  # worst observed 73 kB


def test_unknown_endings_and_missing_files(tmp_path: Path) -> None:
    for call in (read_splats, describe_splats):
        with pytest.raises(ValueError, match=r"ends in \.compressed\.ply, \.ply"):
            call(tmp_path / "a.obj")
        for suffix in SUFFIXES:
            with pytest.raises(FileNotFoundError):
                call(tmp_path / f"none{suffix}")


def test_reading_plain_files_warns_of_nothing(good_files: dict[str, bytes], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix, data in good_files.items():
            (tmp_path / f"a{suffix}").write_bytes(data)
            read_splats(tmp_path / f"a{suffix}")
