"""glTF 2.0 with KHR_gaussian_splatting: ``.glb``, or ``.gltf`` with its numbers inside.

A primitive of points with float attributes: POSITION; ROTATION (x y z w), SCALE (standard deviations), OPACITY and
SH_DEGREE_0_COEF_0 of the extension; and COLOR_0, which viewers without the extension show as points. It is derived from
the harmonics, as the extension says, so it is sRGB as they are; a viewer that takes it for linear, as glTF's other
colours are, shows points lighter. The axes are glTF's: y up, the front towards +z, as this library's world is. Drafts
of 2025 held the logarithm in SCALE; such files are refused, since nothing in them says so but a scale below 0.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from cgsgan.export.atomic import atomic_path
from cgsgan.export.axes import check_axes
from cgsgan.export.gltf_buffers import BIN_CHUNK, CHUNK, GLB, JSON_CHUNK
from cgsgan.export.gltf_reader import COLOR_SPACE, EXTENSION, POINTS, read_primitives
from cgsgan.export.packing import to_levels
from cgsgan.export.scene import DEFAULTS, ExportOptions, believe, color_to_dc, prepare_scene
from cgsgan.types import Gaussians

AXES = "opengl"
DATA_URI = "data:application/octet-stream;base64,"


def write_gltf(path: str | os.PathLike[str], gaussians: Gaussians, options: ExportOptions = DEFAULTS) -> int:
    """Write one scene, atomically, as one file: ``.gltf`` holds its numbers as base64, everything else is a ``.glb``.

    Args:
        path: the file; missing folders are created.
        gaussians: one scene without a batch axis, RGB, in this library's world.
        options: how; axes ``opengl``, which the format prescribes, unless they say otherwise.

    Returns:
        The number of splats written.

    Raises:
        ValueError: as :func:`cgsgan.export.scene.prepare_scene`.
    """
    scene, _ = prepare_scene(gaussians, options, axes=AXES, writer="write_gltf")
    attributes = _attributes(scene)
    body = b"".join(values.tobytes() for values in attributes.values())
    document = _document(attributes, len(body))
    with atomic_path(path) as temporary:
        if Path(path).suffix.lower() == ".gltf":
            document["buffers"][0]["uri"] = DATA_URI + base64.b64encode(body).decode("ascii")
            temporary.write_text(json.dumps(document), encoding="utf-8")
        else:
            temporary.write_bytes(_glb(document, body))
    return scene.count


def read_gltf(path: str | os.PathLike[str], *, axes: str = AXES) -> Gaussians:
    """Read the splats of a glTF file, all of its scene in one; harmonics above degree 0 are dropped with a warning.

    Args:
        path: a ``.glb``; or a ``.gltf``, whose buffers are inside or are files in the same folder.
        axes: its frame.

    Returns:
        One scene on the CPU, float32, in this library's world.

    Raises:
        SplatFileError: no glTF, damaged, without splats, or with what is not supported: compression, sparse
            accessors, nodes that shear, colours that are not display-referred sRGB.
        OSError: when the file cannot be opened.
    """
    check_axes(axes)
    path = Path(path)
    return believe(path, read_primitives(path), axes=axes)


def _attributes(scene: Gaussians) -> dict[str, np.ndarray]:
    """The attributes by name; each is a whole number of 4 bytes long."""
    colors, opacities = scene.colors.numpy(), scene.opacities.numpy()
    rgba = to_levels(np.concatenate([colors, opacities[:, None]], axis=1), 255)
    return {
        "POSITION": scene.means.numpy().astype("<f4"),
        "COLOR_0": rgba.astype(np.uint8),
        f"{EXTENSION}:ROTATION": scene.quats.numpy()[:, [1, 2, 3, 0]].astype("<f4"),
        f"{EXTENSION}:SCALE": scene.scales.numpy().astype("<f4"),
        f"{EXTENSION}:OPACITY": opacities[:, None].astype("<f4"),
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": color_to_dc(colors).astype("<f4"),
    }


def _document(attributes: dict[str, np.ndarray], size: int) -> dict[str, Any]:
    views, accessors, start = [], [], 0
    for name, values in attributes.items():
        views.append({"buffer": 0, "byteOffset": start, "byteLength": values.nbytes, "target": 34962})
        accessor: dict[str, Any] = {"bufferView": len(accessors), "count": len(values)}
        accessor["type"] = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[values.shape[1]]
        accessor["componentType"] = 5121 if values.dtype == np.uint8 else 5126
        if values.dtype == np.uint8:
            accessor["normalized"] = True
        if name == "POSITION":
            accessor.update(min=values.min(axis=0).tolist(), max=values.max(axis=0).tolist())
        accessors.append(accessor)
        start += values.nbytes
    meaning = {"kernel": "ellipse", "colorSpace": COLOR_SPACE}
    meaning |= {"projection": "perspective", "sortingMethod": "cameraDistance"}
    primitive = {"mode": POINTS, "attributes": {name: i for i, name in enumerate(attributes)}}
    return {
        "asset": {"version": "2.0", "generator": "cgsgan"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{**primitive, "extensions": {EXTENSION: meaning}}]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": size}],
    }


def _glb(document: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 4)
    chunks = CHUNK.pack(len(text), JSON_CHUNK) + text + CHUNK.pack(len(body), BIN_CHUNK) + body
    return GLB.pack(b"glTF", 2, GLB.size + len(chunks)) + chunks
