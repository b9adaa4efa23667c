from __future__ import annotations

import gzip
import math
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgsgan.export import ExportOptions, ViewDependentColorWarning
from cgsgan.export.spz import read_spz, write_spz
from cgsgan.types import SH_C0
from tests.export.round_trips import assert_within, random_scene, read_mutated, refused

# |dq| <= 2 |d others|, since the largest component is at least 1/2; in version 2 it may be 0 and is then off by
# the root of what is missing.
SMALLEST = math.degrees(2 * 2 * 3**0.5 * 0.5**0.5 / 511 / 2)
BOUNDS = {
    "means": 0.5 / 4096 + 1e-7,  # worst observed 0.000122 = 0.5 / 4096
    "log_scales": 0.5 / 16 + 1e-5,  # 0.03125
    "opacities": 0.5 / 255 + 1e-6,  # 0.00196
    "colors": SH_C0 / 0.15 * 0.5 / 255 + 1e-6,  # 0.00369
    "degrees": SMALLEST,  # 0.19 of 0.27
}


def needs_zstandard(version: int) -> None:
    if version == 4:
        pytest.importorskip("zstandard")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 300),
    seed=st.integers(0, 2**31),
    axes=st.sampled_from(["opencv", "opengl"]),
    version=st.sampled_from([2, 3, 4]),
)
def test_round_trip(tmp_path: Path, count: int, seed: int, axes: str, version: int) -> None:
    needs_zstandard(version)
    scene = random_scene(count, seed)
    assert write_spz(tmp_path / "a.spz", scene, ExportOptions(axes=axes, spz_version=version)) == count
    bounds = BOUNDS if version > 2 else {**BOUNDS, "degrees": 14.0}  # worst observed 9.6, nearly all below 1
    assert_within(read_spz(tmp_path / "a.spz", axes=axes), scene, bounds)


def test_layout_of_version_3(tmp_path: Path) -> None:
    scene = replace(random_scene(2), quats=torch.tensor([[0.9, -0.1, 0.3, 0.3], [0.1, 0.2, -0.9, 0.4]]))
    write_spz(tmp_path / "a.spz", scene)
    body = gzip.decompress((tmp_path / "a.spz").read_bytes())
    assert struct.unpack("<4sIIBBBB", body[:16]) == (b"NGSP", 3, 2, 0, 12, 0, 0)
    assert len(body) == 16 + 2 * 20
    x = int.from_bytes(body[16:19], "little", signed=True) / 4096  # the scene's own axes: right, up, back
    assert x == pytest.approx(scene.means[0, 0].item(), abs=0.5 / 4096)
    assert body[16 + 18] == round(scene.opacities[0].item() * 255)
    assert body[16 + 20] == round(((scene.colors[0, 0].item() - 0.5) / SH_C0 * 0.15 + 0.5) * 255)
    assert body[16 + 26] == round((math.log(scene.scales[0, 0].item()) + 10) * 16)
    first, second = struct.unpack("<2I", body[16 + 32 :])
    assert (first >> 30, second >> 30) == (3, 1)  # the largest are w and y, in the order x y z w
    assert first >> 20 & 1023 == 512 | round(0.1 * 2**0.5 * 511)  # x = -0.1: sign and size
    assert second >> 20 & 1023 == 512 | round(0.2 / math.sqrt(1.02) * 2**0.5 * 511)  # turned round, as y is negative


def test_the_same_scene_gives_the_same_bytes(tmp_path: Path) -> None:
    for version in (2, 3):
        for name in ("a.spz", "b.spz"):
            write_spz(tmp_path / name, random_scene(20), ExportOptions(spz_version=version))
        assert (tmp_path / "a.spz").read_bytes() == (tmp_path / "b.spz").read_bytes()


def test_writer_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="spz_version must be 2, 3 or 4, got 1"):
        write_spz(tmp_path / "a.spz", random_scene(3), ExportOptions(spz_version=1))
    with pytest.raises(ValueError, match=r"within \+-2048, got 5000"):
        write_spz(tmp_path / "a.spz", replace(random_scene(3), means=torch.full((3, 3), -5000.0)))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ValueError, match=r'pip install "cgsgan\[formats\]"'):
        write_spz(tmp_path / "a.spz", random_scene(3), ExportOptions(spz_version=4))
    assert list(tmp_path.iterdir()) == []


def legacy(version: int = 3, count: int = 3, degree: int = 0, bits: int = 12, flags: int = 0, extra: int = 0) -> bytes:
    """A gzip file with a whole body of zeros for three splats."""
    size = 3 * (20 - (version == 2)) + extra
    return gzip.compress(
        struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, bits, flags, 0) + bytes(size), mtime=0
    )


def test_view_dependent_color_is_dropped_and_told(tmp_path: Path) -> None:
    (tmp_path / "a.spz").write_bytes(legacy(degree=3, extra=3 * 45))
    with pytest.warns(ViewDependentColorWarning, match="degree 1 to 3 are dropped"):
        assert read_spz(tmp_path / "a.spz").count == 3


def test_records_of_vendors_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.spz").write_bytes(legacy(flags=2, extra=20))
    with pytest.warns(UserWarning, match="records of vendors are passed over"):
        assert read_spz(tmp_path / "a.spz").count == 3


BOMB = gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, 10_000_000, 0, 12, 0, 0) + bytes(200_000), mtime=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file has 0"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "expected"),
        (b"PK\x03\x04" + bytes(40), "starts with b'PK"),
        (gzip.compress(b"hello, this is no splat file", mtime=0), "starts with 'NGSP', got b'hell'"),
        (gzip.compress(b"NGSP", mtime=0), "SPZ header"),
        (legacy(version=1), "version 2 or 3 here, got 1"),
        (legacy(version=4), "version 2 or 3 here, got 4"),
        (legacy(count=0), "at least one splat"),
        (legacy(count=4), "expected 80 bytes for 4 splats of version 3, got 60"),
        (legacy(count=2), "expected 40 bytes for 2 splats of version 3, got more"),
        (legacy(version=2, count=4), "expected 76 bytes for 4 splats of version 2, got 57"),
        (legacy(degree=5), "degree 0 to 4"),
        (legacy(degree=1), "expected 87 bytes"),
        (legacy(bits=24), "at most 23 fractional bits"),
        (legacy(count=2**32 - 1), "4294967295 splats would be 85899345900"),
        (legacy()[:-8], "and then the file ends"),
        (legacy()[:-3] + b"abc", "damaged"),
        (legacy()[:-8] + b"abcd" + legacy()[-4:], "damaged"),
        (BOMB, "decompression bomb"),
    ],
)
def test_refuses_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refused(tmp_path / "broken.spz", data)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (4, struct.pack("<I", 3), "version 4 here, got 3"),
        (8, struct.pack("<I", 9), "the table says"),
        (12, b"\x01", "5 streams"),
        (15, b"\x03", "3 streams"),
        (16, struct.pack("<I", 1 << 30), "table at byte 1073741824"),
        (32, struct.pack("<Q", 1 << 60), "that fill the file"),
        (40, struct.pack("<Q", 1 << 60), "the table says"),
        (112, b"\0\0\0\0", "zstd"),
    ],
)
def test_refuses_version_4_in_one_line(tmp_path: Path, place: int, value: bytes, message: str) -> None:
    pytest.importorskip("zstandard")
    write_spz(tmp_path / "good.spz", random_scene(3), ExportOptions(spz_version=4))
    data = bytearray((tmp_path / "good.spz").read_bytes())
    data[place : place + len(value)] = value
    assert message in refused(tmp_path / "broken.spz", bytes(data))


def test_a_zstd_stream_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    bomb = zstandard.ZstdCompressor(level=1, write_content_size=False).compressobj()
    packed = bomb.compress(bytes(50_000_000)) + bomb.flush()
    sizes = [(len(packed), 9), (len(packed), 1), (len(packed), 3), (len(packed), 3), (len(packed), 4)]
    table = b"".join(struct.pack("<QQ", *pair) for pair in sizes)
    head = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, 1, 0, 12, 0, 5, 32)
    assert "a stream of 9 bytes, got more" in refused(tmp_path / "bomb.spz", head + table + packed * 5)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), place=st.integers(0, 75), value=st.integers(0, 255))
def test_random_damage_gives_nothing_but_the_named_error(
    tmp_path: Path, good_files: dict[str, bytes], data: st.DataObject, place: int, value: int
) -> None:
    if data.draw(st.booleans()):
        read_mutated(tmp_path / "a.spz", good_files[".spz"], data)
        return
    body = bytearray(gzip.decompress(good_files[".spz"]))  # behind the checksum of gzip
    body[place] = value
    flat = zlib.compressobj(0, zlib.DEFLATED, 31)
    read_mutated(tmp_path / "a.spz", flat.compress(bytes(body)) + flat.flush(), data)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_of_version_4(tmp_path: Path, version_4: bytes, data: st.DataObject) -> None:
    read_mutated(tmp_path / "a.spz", version_4, data)


@pytest.fixture(scope="module")
def version_4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pytest.importorskip("zstandard")
    path = tmp_path_factory.mktemp("spz") / "a.spz"
    write_spz(path, random_scene(3), ExportOptions(spz_version=4))
    return path.read_bytes()
