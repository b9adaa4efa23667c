from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cgsgan.export import ExportOptions, ViewDependentColorWarning
from cgsgan.export.axes import half_turn_x
from cgsgan.export.packing import morton_order
from cgsgan.export.sog import make_codebook, read_sog, write_sog
from cgsgan.types import SH_C0, Gaussians
from tests.export.round_trips import assert_within, random_scene, read_mutated, refused


def in_file_order(scene: Gaussians, axes: str) -> Gaussians:
    turned = half_turn_x(scene) if axes == "opencv" else scene
    order = morton_order(turned.means.double().numpy()).copy()
    return scene.map(lambda tensor: tensor[order])


def spread(values: torch.Tensor) -> float:
    return (values.max() - values.min()).item()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 1000), seed=st.integers(0, 2**31), axes=st.sampled_from(["opencv", "opengl"]))
def test_round_trip(tmp_path: Path, count: int, seed: int, axes: str) -> None:
    scene = in_file_order(random_scene(count, seed), axes)
    assert write_sog(tmp_path / "a.sog", scene, ExportOptions(axes=axes)) == count
    # Worst observed of 2,000: 9.2e-6, 0.0235 (bound 0.0236), 0.00196, 0.00393 (bound 0.00393), 0.84 degrees.
    bounds = {
        "means": 2 * math.log(1.5) / 65535 / 2 * 1.5 + 1e-7,  # ln(1 + |x|) in 16 bits, steeper by 1 + |x| outside
        "log_scales": spread(scene.scales.log()) / 254 + 1e-5,
        "opacities": 0.5 / 255 + 1e-6,
        "colors": spread(scene.colors) / 254 + 1e-6,
        "degrees": math.degrees(2 * 2 * 3**0.5 * 2**0.5 / 255 / 2),
    }
    assert_within(read_sog(tmp_path / "a.sog", axes=axes), scene, bounds)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**31), power=st.sampled_from([0.1, 1.0, 5.0]))
def test_codebooks(count: int, seed: int, power: float) -> None:
    values = np.random.default_rng(seed).normal(size=(count, 3)) ** 2 * 3
    values = values**power
    codes, labels = make_codebook(values)
    assert codes.shape == (256,)
    assert (np.diff(codes) >= 0).all()
    error = np.abs(codes[labels] - values)
    assert error.max() <= np.ptp(values) / 254 * (1 + 1e-9) + 1e-15
    nearest = np.abs(codes[None] - values.reshape(-1, 1)).min(axis=1).reshape(values.shape)
    assert (error <= nearest + 1e-14 * np.ptp(values)).all()


def test_the_adapted_half_of_a_codebook_pays() -> None:
    values = np.random.default_rng(0).normal(size=3000)
    codes, labels = make_codebook(values)
    even = np.linspace(values.min(), values.max(), 256)
    squares = np.abs(even[None] - values[:, None]).min(axis=1) ** 2
    assert np.mean((codes[labels] - values) ** 2) < 0.8 * np.mean(squares)  # observed 0.70; 0.35 for log-normal ones


def test_layout(tmp_path: Path) -> None:
    scene = in_file_order(random_scene(50), "opencv")
    write_sog(tmp_path / "a.sog", scene)
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        meta = json.loads(archive.read("meta.json"))
        pictures = {name: Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist() if "webp" in name}
    assert (meta["version"], meta["count"]) == (2, 50)
    assert sorted(pictures) == ["means_l.webp", "means_u.webp", "quats.webp", "scales.webp", "sh0.webp"]
    assert {picture.size for picture in pictures.values()} == {(8, 8)}
    assert len(meta["scales"]["codebook"]) == len(meta["sh0"]["codebook"]) == 256
    pixels = {name[:-5]: np.asarray(picture.convert("RGBA")).reshape(64, 4) for name, picture in pictures.items()}
    stored = half_turn_x(scene)
    level = int(pixels["means_l"][7, 1]) + 256 * int(pixels["means_u"][7, 1])
    y = meta["means"]["mins"][1] + (meta["means"]["maxs"][1] - meta["means"]["mins"][1]) * level / 65535
    assert math.copysign(math.expm1(abs(y)), y) == pytest.approx(stored.means[7, 1].item(), abs=1e-5)
    largest = stored.quats[7].abs().argmax().item()
    assert pixels["quats"][7, 3] == 252 + largest
    assert math.exp(meta["scales"]["codebook"][pixels["scales"][7, 2]]) == pytest.approx(
        scene.scales[7, 2].item(), 0.03
    )
    color = 0.5 + SH_C0 * meta["sh0"]["codebook"][pixels["sh0"][7, 0]]
    assert color == pytest.approx(scene.colors[7, 0].item(), abs=0.004)
    assert pixels["sh0"][7, 3] == round(scene.opacities[7].item() * 255)


def test_opaque_invisible_and_equal_splats(tmp_path: Path) -> None:
    scene = replace(
        random_scene(2), means=torch.ones(2, 3) / 4, opacities=torch.tensor([0.0, 1.0]), scales=torch.full((2, 3), 0.01)
    )
    write_sog(tmp_path / "a.sog", scene, ExportOptions(prune=0.0))
    back = read_sog(tmp_path / "a.sog")
    assert back.opacities.tolist() == [0.0, 1.0]  # colours under opacity 0 are kept, too
    assert (back.colors - scene.colors).abs().max() < 0.004
    assert (back.means - 0.25).abs().max() < 1e-6
    assert (back.scales - 0.01).abs().max() < 1e-6


def test_the_same_scene_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.sog", "b.sog"):
        write_sog(tmp_path / name, random_scene(20))
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()


def rebuilt(whole: bytes, change: Callable[[dict[str, Any], dict[str, bytes]], None], **kind: Any) -> bytes:
    """The zip with other contents: ``change`` is given meta.json and the pictures."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(files.pop("meta.json"))
    change(meta, files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        if "meta.json" not in files:
            archive.writestr("meta.json", json.dumps(meta))
    return out.getvalue()


def test_deflated_zips_png_and_palettes_of_harmonics(tmp_path: Path, good_files: dict[str, bytes]) -> None:
    (tmp_path / "a.sog").write_bytes(good_files[".sog"])
    scene = read_sog(tmp_path / "a.sog")

    def change(meta: dict[str, Any], files: dict[str, bytes]) -> None:
        out = io.BytesIO()
        Image.open(io.BytesIO(files.pop("sh0.webp"))).save(out, format="PNG")
        files["color.png"] = out.getvalue()
        meta["sh0"]["files"] = ["color.png"]
        meta["shN"] = {"count": 1, "bands": 2, "codebook": [0.0], "files": ["a.webp", "b.webp"]}

    (tmp_path / "b.sog").write_bytes(rebuilt(good_files[".sog"], change, compression=zipfile.ZIP_DEFLATED))
    with pytest.warns(ViewDependentColorWarning, match="degree 1 to 2"):
        other = read_sog(tmp_path / "b.sog")
    assert all(torch.equal(a, b) for a, b in zip(scene.tensors(), other.tensors()))


def webp(width: int, height: int, value: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (width, height), (value,) * 4).save(out, format="WEBP", lossless=True, exact=True)
    return out.getvalue()


def lossy() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, format="WEBP", quality=80)
    return out.getvalue()


def png_bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, f: m.pop("version"), "version 2, got 1"),
        (lambda m, f: m.update(version=3), "version 2, got 3"),
        (lambda m, f: m.update(count=0), "as count"),
        (lambda m, f: m.update(count=17), "a pixel for each of 17 splats"),
        (lambda m, f: m.update(count=2**31), "as count"),
        (lambda m, f: m.update(count="3"), "as count"),
        (lambda m, f: m.pop("means"), "picture 0 of means"),
        (lambda m, f: m["means"].update(files=["means_l.webp"]), "picture 1 of means"),
        (lambda m, f: m["means"].update(files=["../a.webp", "b"]), "'../a.webp' in the zip, there is none"),
        (lambda m, f: m["means"].update(mins=[0, 0]), "as means.mins"),
        (lambda m, f: m["means"].update(maxs=[0, 0, float("nan")]), "as means.maxs"),
        (lambda m, f: m["means"].update(maxs=[99, 99, 99]), "has means = inf"),
        (lambda m, f: m["scales"].update(codebook=[]), "as scales.codebook"),
        (lambda m, f: m["scales"].update(codebook=[500.0] * 256), "has scales = inf"),
        (lambda m, f: m["scales"].update(codebook=[0.0]), "indices below 1 in scales"),
        (lambda m, f: m["sh0"].update(codebook=["a"] * 256), "as sh0.codebook"),
        (lambda m, f: m.update(quats=7), "picture 0 of quats"),
        (lambda m, f: f.pop("quats.webp"), "'quats.webp' in the zip, there is none"),
        (lambda m, f: f.update({"quats.webp": webp(4, 4)}), "252 to 255 as alpha of quats, splat 0 has 0"),
        (lambda m, f: f.update({"sh0.webp": webp(1, 2)}), "'sh0.webp' has 1 x 2"),
        (lambda m, f: f.update({"sh0.webp": b"GIF89a"}), "lossless WebP (or PNG)"),
        (lambda m, f: f.update({"sh0.webp": lossy()}), "lossless WebP (or PNG)"),
        (lambda m, f: f.update({"sh0.webp": f["sh0.webp"][:40]}), "a whole picture 'sh0.webp'"),
        (lambda m, f: f.update({"sh0.webp": png_bomb()}), "decompression bomb"),
        (lambda m, f: f.update({"sh0.webp": webp(4096, 4200, 3)}), "decompression bomb"),
        (lambda m, f: f.update({"meta.json": b"{" * 2000}), "JSON in meta.json"),
        (lambda m, f: f.update({"meta.json": b"[2]"}), "version 2, got None"),
        (lambda m, f: f.update({"meta.json": b" " * 2_000_000}), "at most 1048576 bytes in 'meta.json'"),
        (lambda m, f: f.update({"meta.json": b'{"version": 2, "count": 1' + b"0" * 5000 + b"}"}), "JSON in meta.json"),
    ],
)
def test_refuses_in_one_line(
    tmp_path: Path, good_files: dict[str, bytes], change: Callable[[dict, dict], None], message: str
) -> None:
    assert message in refused(tmp_path / "broken.sog", rebuilt(good_files[".sog"], change))


def test_refuses_bombs_and_broken_zips(tmp_path: Path, good_files: dict[str, bytes]) -> None:
    path, good = tmp_path / "broken.sog", good_files[".sog"]
    deflated = {"compression": zipfile.ZIP_DEFLATED}
    bomb = rebuilt(good, lambda m, f: f.update({"sh0.webp": bytes(300_000_000)}), **deflated)
    assert len(bomb) < 400_000
    assert "in 'sh0.webp', the zip says 300000000" in refused(path, bomb)
    lying = bomb.replace(struct.pack("<I", 300_000_000), struct.pack("<I", 100))
    assert "expected 'sh0.webp' to be whole" in refused(path, lying)
    assert "a zip file" in refused(path, b"")
    assert "does not begin like one" in refused(path, b"ply\n" + good)
    assert "a whole zip file" in refused(path, good[:-30])
    assert "method 14" in refused(path, rebuilt(good, lambda m, f: None, compression=zipfile.ZIP_LZMA))
    place = good.index(b"WEBP") + 30
    assert "CRC" in refused(path, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), inside=st.booleans())
def test_random_damage_gives_nothing_but_the_named_error(
    tmp_path: Path, good_files: dict[str, bytes], data: st.DataObject, inside: bool
) -> None:
    whole = good_files[".sog"]
    if inside:  # behind the checksums of the zip

        def change(meta: dict[str, Any], files: dict[str, bytes]) -> None:
            files["meta.json"] = json.dumps(meta).encode()
            name = data.draw(st.sampled_from(sorted(files)))
            changed = bytearray(files[name])
            for _ in range(3):
                changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
            files[name] = bytes(changed)

        whole = rebuilt(whole, change)
    read_mutated(tmp_path / "a.sog", whole, data)
