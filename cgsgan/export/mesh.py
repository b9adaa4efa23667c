"""Coloured triangle meshes, and files of them that other programs open: ``.ply``, ``.obj``, ``.glb``.

World axes stay as they are: +y up, the face looks along +z, which is what glTF demands and what viewers of the others
assume. Lengths are world units; glTF calls them metres, so a head is about half a metre. Colours are display-referred
sRGB in ``.ply`` and ``.obj``, as their readers take them, and linear in ``.glb``, as its specification says (3.7.2.1).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cgsgan.export.atomic import atomic_path


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Triangles with a colour at each vertex.

    Attributes:
        vertices: world units.
        faces: rows of ``vertices``, counter-clockwise seen from outside.
        colors: display-referred sRGB, [0, 1].
    """

    vertices: Float[Tensor, "vertex 3"]
    faces: Int64[Tensor, "face 3"]
    colors: Float[Tensor, "vertex 3"]

    @property
    def watertight(self) -> bool:
        """Whether every edge is passed once in each direction: the mesh has an inside."""
        edges = torch.cat([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        count = len(self.vertices)
        forward = (edges[:, 0] * count + edges[:, 1]).sort().values
        backward = (edges[:, 1] * count + edges[:, 0]).sort().values
        return len(forward) > 0 and torch.equal(forward, backward) and bool((forward.diff() > 0).all())

    @property
    def normals(self) -> Float[Tensor, "vertex 3"]:
        """Outward unit normals at the vertices, faces weighted by their areas."""
        corners = self.vertices[self.faces]
        across = torch.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=1)
        sums = torch.zeros_like(self.vertices)
        for corner in range(3):
            sums.index_add_(0, self.faces[:, corner], across)
        return torch.nn.functional.normalize(sums, dim=1, eps=1e-20)


def write_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Write a mesh, atomically; the ending of ``path`` is the format.

    Raises:
        ValueError: for another ending.
    """
    check_mesh_path(path)
    blob = FORMATS[Path(path).suffix.lower()](mesh)
    with atomic_path(path) as temporary:
        temporary.write_bytes(blob)


def check_mesh_path(path: str | os.PathLike[str]) -> None:
    """Raise ValueError unless the ending is one that can be written."""
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: expected a file ending in {', '.join(FORMATS)}, got {suffix or 'none'!r}")


def _ply(mesh: Mesh) -> bytes:
    vertex = np.dtype([("place", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)])
    vertices = np.empty(len(mesh.vertices), vertex)
    vertices["place"], vertices["normal"] = mesh.vertices.numpy(), mesh.normals.numpy()
    vertices["color"] = _bytes(mesh.colors)
    faces = np.empty(len(mesh.faces), np.dtype([("count", "u1"), ("rows", "<i4", 3)]))
    faces["count"], faces["rows"] = 3, mesh.faces.numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode("ascii") + vertices.tobytes() + faces.tobytes()


def _obj(mesh: Mesh) -> bytes:
    """Colours follow the coordinates, which all common readers understand though the format never had them."""
    rows = torch.cat([mesh.vertices, mesh.colors.clamp(0, 1)], dim=1).tolist()
    lines = [f"v {x:.6g} {y:.6g} {z:.6g} {r:.4g} {g:.4g} {b:.4g}" for x, y, z, r, g, b in rows]
    lines += [f"vn {x:.4g} {y:.4g} {z:.4g}" for x, y, z in mesh.normals.tolist()]
    lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("ascii")


def _glb(mesh: Mesh) -> bytes:
    """Binary glTF 2.0: one mesh with positions, normals and linear colours, which a matte white material multiplies.

    Without a material, glTF's default is a metal, and viewers that follow it, as three.js does, show a dark head. With
    one, trimesh keeps the colours of the meshes of its scene as ``visual.vertex_attributes["color"]``, linear, and
    draws and converts them white; ``.ply`` and ``.obj`` are for it.
    """
    arrays = {
        "POSITION": mesh.vertices.numpy().astype("<f4"),
        "NORMAL": mesh.normals.numpy().astype("<f4"),
        "COLOR_0": linear_from_srgb(mesh.colors).numpy().astype("<f4"),
        "indices": mesh.faces.numpy().astype("<u4").reshape(-1),
    }
    views, accessors, start = [], [], 0
    for number, (name, array) in enumerate(arrays.items()):
        indices = name == "indices"
        target = 34963 if indices else 34962  # element array buffer, array buffer
        views.append({"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": target})
        accessor: dict[str, object] = {
            "bufferView": number,
            "count": len(array),
            "componentType": 5125 if indices else 5126,
        }
        accessor["type"] = "SCALAR" if indices else "VEC3"
        if name == "POSITION":
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        accessors.append(accessor)
        start += array.nbytes
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}, "indices": 3, "material": 0}
    matte = {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 1}
    document = {
        "asset": {"version": "2.0", "generator": "cgsgan"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"name": "colors of the vertices", "pbrMetallicRoughness": matte}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": start}],
    }
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    binary = b"".join(array.tobytes() for array in arrays.values())  # all of them are multiples of 4 bytes
    chunks = _chunk(b"JSON", text) + _chunk(b"BIN\0", binary)
    return b"glTF" + np.array([2, 12 + len(chunks)], "<u4").tobytes() + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return np.array([len(data)], "<u4").tobytes() + kind + data


def linear_from_srgb(colors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Display-referred sRGB in [0, 1] to linear light (IEC 61966-2-1)."""
    colors = colors.clamp(0, 1)
    return torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def _bytes(colors: Tensor) -> np.ndarray:
    return (colors.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


FORMATS: dict[str, Callable[[Mesh], bytes]] = {".ply": _ply, ".obj": _obj, ".glb": _glb}
