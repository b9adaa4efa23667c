"""Splats out of a glTF document, of which nothing is believed: every index, offset and number is checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from cgsgan.export.gltf_buffers import GltfDocument, load_document
from cgsgan.export.gltf_nodes import Placement, place_nodes
from cgsgan.export.scene import RawSplats, SplatFileError, dc_to_color, warn_dropped_color

EXTENSION = "KHR_gaussian_splatting"
COLOR_SPACE = "srgb_rec709_display"
POINTS = 0
HARMONIC = re.compile(rf"{EXTENSION}:SH_DEGREE_(\d)_COEF_\d")


def read_primitives(path: Path) -> RawSplats:
    """All splats of the document's scene, placed by its nodes.

    Raises:
        SplatFileError: see :func:`cgsgan.export.gltf.read_gltf`.
        OSError: when a file cannot be opened.
    """
    document = load_document(path)
    found: list[RawSplats] = []
    for place in place_nodes(document):
        mesh = document.item("meshes", place.mesh)
        primitives = document.list_of(mesh, "primitives", f"meshes[{place.mesh}]")
        for index, primitive in enumerate(primitives):
            where = f"meshes[{place.mesh}].primitives[{index}]"
            extensions = document.dict_of(primitive, "extensions", where)
            if EXTENSION in extensions:
                found.append(_placed(_read_primitive(document, primitive, where), place))
                document.count_splats(len(found[-1].means))
    if not found:
        raise SplatFileError(f"{path}: expected a scene with a primitive of {EXTENSION}, found none (a mesh?)")
    names = ("means", "quats", "scales", "opacities", "colors")
    return RawSplats(**{name: np.concatenate([getattr(raw, name) for raw in found]) for name in names})


def _read_primitive(document: GltfDocument, primitive: dict[str, Any], where: str) -> RawSplats:
    meaning = document.dict_of(primitive["extensions"], EXTENSION, where)
    inner = sorted(document.dict_of(meaning, "extensions", where))
    if inner:
        raise document.error(f"{where}: expected splats that are not compressed, got {str(inner[0])[:60]!r}")
    for name, expected in (("kernel", "ellipse"), ("colorSpace", COLOR_SPACE)):
        if meaning.get(name, expected) != expected:
            raise document.error(f"{where}: expected {name} {expected!r}, got {str(meaning[name])[:40]!r}")
    if primitive.get("mode") != POINTS:
        raise document.error(f"{where}: expected mode 0 (points), got {str(primitive.get('mode'))[:20]}")
    attributes = document.dict_of(primitive, "attributes", where)
    degrees = [
        int(match[1]) for name in attributes if (match := re.fullmatch(rf"{EXTENSION}:SH_DEGREE_(\d)_COEF_\d", name))
    ]
    if degrees and max(degrees) > 0:
        warn_dropped_color(document.path, max(degrees))
    values = {}
    for name, size in (("POSITION", 3), ("ROTATION", 4), ("SCALE", 3), ("OPACITY", 1), ("SH_DEGREE_0_COEF_0", 3)):
        full = name if name == "POSITION" else f"{EXTENSION}:{name}"
        if full not in attributes:
            raise document.error(f"{where}: expected the attributes of splats, missing {full}")
        values[name] = document.read_accessor(attributes[full], size, f"{where}.{name}")
    counts = {len(array) for array in values.values()}
    if len(counts) != 1:
        raise document.error(f"{where}: expected as many of every attribute, got {sorted(counts)}")
    if (values["SCALE"] < 0).any():
        row = int(np.argmax((values["SCALE"] < 0).any(axis=1)))
        raise document.error(
            f"{where}: expected standard deviations, splat {row} has one below 0 (logarithms of a 2025 draft?)"
        )
    return RawSplats(
        means=values["POSITION"],
        quats=values["ROTATION"][:, [3, 0, 1, 2]],
        scales=values["SCALE"],
        opacities=values["OPACITY"][:, 0],
        colors=dc_to_color(values["SH_DEGREE_0_COEF_0"]),
    )


def _placed(raw: RawSplats, place: Placement) -> RawSplats:
    if place.is_identity:
        return raw
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are found by believe
        return RawSplats(
            means=raw.means @ place.matrix[:3, :3].T + place.matrix[:3, 3],
            quats=place.turn(raw.quats),
            scales=raw.scales * place.scale,
            opacities=raw.opacities,
            colors=raw.colors,
        )
