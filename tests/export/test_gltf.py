from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgsgan.export import ExportOptions, SplatFileError, ViewDependentColorWarning
from cgsgan.export.gltf import read_gltf, write_gltf
from cgsgan.export.gltf_reader import EXTENSION
from cgsgan.types import SH_C0, Gaussians
from tests.export.round_trips import assert_within, random_scene, read_mutated, refused

BOUNDS = {
    "means": 0.0,
    "log_scales": 0.0,
    "opacities": 1e-7,  # worst observed 6e-8: kept 2^-24 away from 1
    "colors": 3e-7,  # 1.2e-7
    "degrees": 1e-4,  # 3e-5
}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 300),
    seed=st.integers(0, 2**31),
    axes=st.sampled_from(["opencv", "opengl"]),
    suffix=st.sampled_from([".glb", ".gltf"]),
)
def test_round_trip(tmp_path: Path, count: int, seed: int, axes: str, suffix: str) -> None:
    scene = random_scene(count, seed)
    assert write_gltf(tmp_path / f"a{suffix}", scene, ExportOptions(axes=axes)) == count
    assert_within(read_gltf(tmp_path / f"a{suffix}", axes=axes), scene, BOUNDS)


def document_of(scene: Gaussians, tmp_path: Path) -> dict[str, Any]:
    write_gltf(tmp_path / "good.gltf", scene, ExportOptions(prune=0.0))
    return json.loads((tmp_path / "good.gltf").read_text())


def test_layout(tmp_path: Path) -> None:
    scene = random_scene(5)
    write_gltf(tmp_path / "a.glb", scene)
    data = (tmp_path / "a.glb").read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIIII", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), 0x4E4F534A)
    document = json.loads(data[20 : 20 + size])
    assert size % 4 == 0
    assert struct.unpack_from("<II", data, 20 + size) == (document["buffers"][0]["byteLength"], 0x004E4942)
    assert document["extensionsUsed"] == [EXTENSION]
    primitive = document["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0
    assert primitive["extensions"][EXTENSION] == {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    body = data[28 + size :]

    def numbers(name: str, kind: str, width: int) -> np.ndarray:
        accessor = document["accessors"][primitive["attributes"][name]]
        assert accessor["count"] == 5
        view = document["bufferViews"][accessor["bufferView"]]
        return np.frombuffer(body, kind, 5 * width, view["byteOffset"]).reshape(5, width)

    assert np.array_equal(numbers("POSITION", "<f4", 3), scene.means.numpy())  # y up, face to +z: glTF's own axes
    position = document["accessors"][primitive["attributes"]["POSITION"]]
    assert position["min"] == scene.means.min(dim=0).values.tolist()
    assert position["max"] == scene.means.max(dim=0).values.tolist()
    assert np.allclose(numbers(f"{EXTENSION}:SCALE", "<f4", 3), scene.scales.numpy(), rtol=1e-6)
    assert np.allclose(numbers(f"{EXTENSION}:OPACITY", "<f4", 1)[:, 0], scene.opacities.numpy(), atol=1e-6)
    assert np.allclose(numbers(f"{EXTENSION}:ROTATION", "<f4", 4)[:, 3], scene.quats[:, 0].numpy(), atol=1e-6)
    dc = numbers(f"{EXTENSION}:SH_DEGREE_0_COEF_0", "<f4", 3)
    assert np.allclose(0.5 + SH_C0 * dc, scene.colors.numpy(), atol=1e-6)
    assert np.array_equal(numbers("COLOR_0", "u1", 4)[:, :3], np.rint(scene.colors.numpy() * 255))


def covariances(scene: Gaussians) -> torch.Tensor:
    w, x, y, z = scene.quats.double().unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    factor = torch.stack(rows, -2) * scene.scales.double()[:, None, :]
    return factor @ factor.mT


def test_nodes_place_splats(tmp_path: Path) -> None:
    scene = random_scene(20)
    document = document_of(scene, tmp_path)
    half = math.sin(math.pi / 8)
    document["nodes"] = [
        {"children": [1], "rotation": [0, half, 0, math.cos(math.pi / 8)], "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 0.5, 0, 1, 1]},
    ]
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    placed = read_gltf(tmp_path / "a.gltf")
    c = s = math.sqrt(0.5)
    outer = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
    inner = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    turn = outer @ inner
    means = 2 * (scene.means.double() @ turn.T + torch.tensor([0.5, 0, 1], dtype=torch.float64) @ outer.T)
    torch.testing.assert_close(placed.means.double(), means, atol=1e-6, rtol=0)  # worst observed 1.7e-7
    expected = 4 * turn @ covariances(scene) @ turn.T
    torch.testing.assert_close(covariances(placed), expected, atol=1e-8, rtol=0)  # 1.9e-9
    document["nodes"][1]["mesh"] = 0
    document["scenes"] = [{"nodes": [0, 1]}]  # once inside the other node, once by itself
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    assert read_gltf(tmp_path / "a.gltf").count == 40


def test_small_integers(tmp_path: Path) -> None:
    scene = random_scene(8)
    document = document_of(scene, tmp_path)
    data = base64.b64decode(document["buffers"][0]["uri"].partition(",")[2])
    quats = np.rint(scene.quats.numpy()[:, [1, 2, 3, 0]] * 32767).astype("<i2").tobytes()
    opacities = np.zeros((8, 4), np.uint8)  # rows of four bytes, of which one counts
    opacities[:, 0] = np.rint(scene.opacities.numpy() * 255)
    for name, values, kind, stride in (("ROTATION", quats, 5122, 8), ("OPACITY", opacities.tobytes(), 5121, 4)):
        accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"][f"{EXTENSION}:{name}"]]
        view = {"buffer": 0, "byteOffset": len(data), "byteLength": len(values), "byteStride": stride}
        document["bufferViews"].append(view)
        accessor.update(bufferView=len(document["bufferViews"]) - 1, componentType=kind, normalized=True)
        data += values
    document["buffers"] = [{"byteLength": len(data), "uri": "my%20numbers.bin"}]
    (tmp_path / "my numbers.bin").write_bytes(data)
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    bounds = {**BOUNDS, "opacities": 0.5 / 255 + 1e-6, "degrees": 0.006}  # worst observed 0.0019 and 0.0035
    assert_within(read_gltf(tmp_path / "a.gltf"), scene, bounds)


def test_view_dependent_color_is_dropped_and_told(tmp_path: Path) -> None:
    document = document_of(random_scene(3), tmp_path)
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    for index in range(3):
        attributes[f"{EXTENSION}:SH_DEGREE_1_COEF_{index}"] = attributes[f"{EXTENSION}:SH_DEGREE_0_COEF_0"]
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    with pytest.warns(ViewDependentColorWarning, match="degree 1 to 1"):
        assert read_gltf(tmp_path / "a.gltf").count == 3


def change(where: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set what a path like ``nodes.0.mesh`` names; an Ellipsis as the value removes it."""

    def apply(document: dict[str, Any]) -> None:
        *path, last = (int(word) if word.isdigit() else word for word in where.split("/"))
        owner: Any = document
        for key in path:
            owner = owner[key]
        if value is ...:
            del owner[last]
        else:
            owner[last] = value

    return apply


PRIMITIVE = "meshes/0/primitives/0"
SPLATS = f"{PRIMITIVE}/extensions/{EXTENSION}"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("asset", ..., "version None"),
        ("asset/version", "1.0", "version 1.0"),
        ("scenes", ..., "found none (a mesh?)"),
        ("scenes", 3, "a list scenes"),
        ("scene", 1, "an index into 1 scenes, got 1"),
        ("scene", True, "got True"),
        ("nodes/0", [], "an object at nodes[0]"),
        ("nodes/0/mesh", -1, "an index into 1 meshes, got -1"),
        ("nodes/0/mesh", "0", "an index into 1 meshes, got 0"),
        ("nodes/0/children", [0], "64 deep, found more (a loop?)"),
        ("nodes/0/scale", [1, 2, 1], "deforms or mirrors"),
        ("nodes/0/scale", [-1, -1, -1], "deforms or mirrors"),
        ("nodes/0/scale", [1, 1], "3 numbers as scale"),
        ("nodes/0/rotation", [0, 0, 0, 2], "unit length"),
        ("nodes/0/translation", [0, 0, 1e300], "3 numbers as translation"),
        ("nodes/0/matrix", [float("nan")] * 16, "16 numbers as matrix"),
        (f"{PRIMITIVE}/mode", 4, "mode 0 (points), got 4"),
        (f"{PRIMITIVE}/extensions", ..., "found none"),
        (f"{SPLATS}/kernel", "cube", "kernel 'ellipse', got 'cube'"),
        (f"{SPLATS}/colorSpace", "lin_rec709_display", "got 'lin_rec709_display'"),
        (f"{SPLATS}/extensions", {"KHR_gaussian_splatting_compression_spz_2": {}}, "not compressed"),
        (f"{PRIMITIVE}/attributes/{EXTENSION}:SCALE", ..., "missing KHR_gaussian_splatting:SCALE"),
        (f"{PRIMITIVE}/attributes/POSITION", 99, "an index into 6 accessors, got 99"),
        (f"{PRIMITIVE}/attributes/POSITION", 2, "POSITION: expected 3 components, got type 'VEC4'"),
        ("accessors/0/count", 10**9, "got 1000000000 rows"),
        ("accessors/0/count", 2, "as many of every attribute, got [2, 3]"),
        ("accessors/0/count", 0, "got 0 rows"),
        ("accessors/0/count", 1.5, "a whole number count"),
        ("accessors/0/count", 10**400, "a whole number count"),
        ("accessors/0/byteOffset", 4, "inside its buffer view"),
        ("accessors/0/sparse", {}, "a sparse one"),
        ("accessors/0/componentType", 5130, "componentType 5130"),
        ("accessors/3/componentType", [], "componentType []"),
        ("accessors/0/type", {}, "got type"),
        ("bufferViews/0/byteStride", 0, "rows of 12 bytes every 0"),
        ("bufferViews/0/byteLength", 10**9, "in a buffer of"),
        ("bufferViews/0/byteOffset", 10**12, "in a buffer of"),
        ("bufferViews/0/buffer", ..., "an index into 1 buffers, got None"),
        ("buffers/0/byteLength", 10**9, "expected 1000000000 bytes"),
        ("buffers/0/uri", "data:;base64,@@@@", "base64"),
        ("buffers/0/uri", "data:text/plain,hello", "base64"),
        ("buffers/0/uri", "../secret.bin", "same folder"),
        ("buffers/0/uri", "%2e%2e/secret.bin", "same folder"),
        ("buffers/0/uri", "/etc/passwd", "same folder"),
        ("buffers/0/uri", "https://example.org/a.bin", "same folder"),
        ("buffers/0/uri", "none.bin", "there is none"),
        ("buffers/0/uri", ..., "got neither"),
    ],
)
def test_refuses_in_one_line(tmp_path: Path, where: str, value: Any, message: str) -> None:
    document = document_of(random_scene(3), tmp_path)
    change(where, value)(document)
    with np.errstate(all="raise"):
        text = refused(tmp_path / "broken.gltf", json.dumps(document).encode() if value != 10**400 else huge(document))
    assert message in text


def huge(document: dict[str, Any]) -> bytes:
    change("accessors/0/count", 12345)(document)
    return json.dumps(document).replace("12345", "1" + "0" * 400).encode()


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (replace(random_scene(3), opacities=torch.tensor([0.5, 0.5, 0.5])), "splat 1 has opacities = 1.5"),
        (random_scene(3), "splat 2 has means = "),
        (random_scene(3), "splat 0 has one below 0 (logarithms"),
    ],
)
def test_refuses_numbers_that_do_not_fit(tmp_path: Path, scene: Gaussians, message: str) -> None:
    write_gltf(tmp_path / "good.glb", scene, ExportOptions(prune=0.0))
    data = (tmp_path / "good.glb").read_bytes()
    start = len(data) - 3 * (12 + 4 + 16 + 12 + 4 + 12)
    place, value = {"opac": (3 * (12 + 4 + 16 + 12) + 4, 1.5), "mean": (2 * 12, math.nan), "one ": (3 * 32, -4.0)}[
        message.split(" has ")[1][:4]
    ]
    changed = data[: start + place] + struct.pack("<f", value) + data[start + place + 4 :]
    assert message in refused(tmp_path / "broken.glb", changed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "at least 2 bytes"),
        (b"glTF", "header of a .glb"),
        (b"solid cube\n", "its JSON is damaged"),
        (b"[" * 100_000, "its JSON is damaged"),
        (b"[1]", "version None"),
        (b"\xff\xfe{}", "its JSON is damaged"),
        (struct.pack("<4sII", b"glTF", 1, 28) + bytes(16), "it says version 1"),
        (struct.pack("<4sII", b"glTF", 2, 99) + bytes(16), "99 bytes"),
        (struct.pack("<4sIIII", b"glTF", 2, 20, 0xFFFFFFFF, 0x4E4F534A), "a chunk of 4294967295 bytes"),
        (struct.pack("<4sIIII", b"glTF", 2, 20, 0, 0x004E4942), "a JSON chunk"),
    ],
)
def test_refuses_what_is_no_gltf(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refused(tmp_path / "broken.glb", data)


def test_a_buffer_shown_a_thousand_times_is_a_bomb(tmp_path: Path) -> None:
    document = document_of(random_scene(2000), tmp_path)
    document["scenes"] = [{"nodes": [0] * 9000}]
    text = refused(tmp_path / "bomb.gltf", json.dumps(document).encode())
    assert "decompression bomb" in text


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from([".glb", ".gltf"]))
def test_random_damage_gives_nothing_but_the_named_error(
    tmp_path: Path, good_files: dict[str, bytes], data: st.DataObject, suffix: str
) -> None:
    read_mutated(tmp_path / f"a{suffix}", good_files[suffix], data)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.text(max_size=3), st.just([]), st.just({})
)


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_odd_values_anywhere_give_nothing_but_the_named_error(
    tmp_path: Path, good_files: dict[str, bytes], data: st.DataObject
) -> None:
    document = json.loads(good_files[".gltf"])
    for _ in range(data.draw(st.integers(1, 3))):
        owner = document
        while True:
            keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(owner[key], dict | list) and data.draw(st.integers(0, 4)):
                owner = owner[key]
                continue
            owner[key] = data.draw(ODD)
            break
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    with suppress(SplatFileError):
        read_gltf(tmp_path / "a.gltf")
