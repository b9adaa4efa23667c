"""Where the nodes of a glTF scene place their meshes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgsgan.export.gltf_buffers import GltfDocument

DEEPEST, MOST_NODES = 64, 10_000
SHEAR = 1e-4
"""Relative; a node whose axes differ more in length or angle from a rotation's would deform Gaussians."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A mesh in the world: a rotation, one scale for all axes, a translation.

    Attributes:
        mesh: its index.
        matrix: [4, 4], of column vectors.
        scale: the factor of lengths, > 0.
    """

    mesh: Any
    matrix: np.ndarray
    scale: float

    @property
    def is_identity(self) -> bool:
        """Nothing is moved."""
        return bool((self.matrix == np.eye(4)).all())

    def turn(self, quats: np.ndarray) -> np.ndarray:
        """Orientations (w, x, y, z) after the rotation."""
        w, x, y, z = _quaternion(self.matrix[:3, :3] / self.scale)
        left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
        return quats @ left.T


def place_nodes(document: GltfDocument) -> Iterator[Placement]:
    """Every mesh of the scene that the document shows (its first, when it names none).

    Raises:
        SplatFileError: for nodes that form a loop, deform, or are absurdly many.
    """
    if not document.list_of(document.root, "scenes", "the document"):
        return
    scene = document.item("scenes", document.root.get("scene", 0))
    left = [(index, np.eye(4), 0) for index in document.list_of(scene, "nodes", "the scene")]
    seen = 0
    while left:
        index, parent, depth = left.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_NODES:
            raise document.error(f"expected at most {MOST_NODES} nodes, {DEEPEST} deep, found more (a loop?)")
        node = document.item("nodes", index)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no rotation, and refused as such
            matrix = parent @ _local_matrix(document, node, f"nodes[{index}]")
        if "mesh" in node:
            yield Placement(mesh=node["mesh"], matrix=matrix, scale=_uniform_scale(document, matrix, f"nodes[{index}]"))
        left += [(child, matrix, depth + 1) for child in document.list_of(node, "children", f"nodes[{index}]")]


def _local_matrix(document: GltfDocument, node: dict[str, Any], where: str) -> np.ndarray:
    if "matrix" in node:
        return _numbers(document, node, "matrix", 16, where).reshape(4, 4).T
    matrix = np.eye(4)
    if "rotation" in node:
        x, y, z, w = _numbers(document, node, "rotation", 4, where)
        if abs(x * x + y * y + z * z + w * w - 1) > SHEAR:
            raise document.error(f"{where}: expected a rotation of unit length, got {x:.4g} {y:.4g} {z:.4g} {w:.4g}")
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    if "scale" in node:
        matrix[:3, :3] *= _numbers(document, node, "scale", 3, where)
    if "translation" in node:
        matrix[:3, 3] = _numbers(document, node, "translation", 3, where)
    return matrix


def _numbers(document: GltfDocument, node: dict[str, Any], key: str, count: int, where: str) -> np.ndarray:
    values = document.list_of(node, key, where)
    good = len(values) == count and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not good or not all(abs(v) < 1e30 for v in values):
        raise document.error(f"{where}: expected {count} numbers as {key}, got {str(values)[:60]}")
    return np.array(values, dtype=np.float64)


def _uniform_scale(document: GltfDocument, matrix: np.ndarray, where: str) -> float:
    axes = matrix[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        scale = float(np.linalg.norm(axes) / 3**0.5)
        product = axes.T @ axes
        straight = np.abs(product - np.eye(3) * scale**2).max() <= SHEAR * scale**2
    if not (0 < scale < 1e15 and straight and np.linalg.det(axes) > 0) or (matrix[3] != [0, 0, 0, 1]).any():
        raise document.error(f"{where}: expected a rotation, one scale and a translation, it deforms or mirrors splats")
    return scale


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """A rotation matrix as the eigenvector of its largest eigenvalue (Bar-Itzhack 2000); (w, x, y, z)."""
    m = rotation
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m.trace()],
        ]
    )
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]  # reads the lower triangle
    return np.array([w, x, y, z])
