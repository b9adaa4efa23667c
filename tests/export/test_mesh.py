"""Mesh files, opened by trimesh: the same triangles, colours and axes in every format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from cgsgan.export.mesh import FORMATS, Mesh, linear_from_srgb, write_mesh


def tetrahedron() -> Mesh:
    """Four corners in four colours; the first is at the top, the second at the right, the third in front."""
    vertices = torch.tensor([[0.0, 0.4, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.5], [-0.1, -0.2, -0.3]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.25, 0.75]])
    return Mesh(vertices=vertices, faces=faces, colors=colors)


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_files_open_with_their_triangles_and_colors(tmp_path: Path, suffix: str):
    mesh, path = tetrahedron(), tmp_path / f"head{suffix}"
    write_mesh(path, mesh)
    [loaded] = trimesh.load_scene(path, process=False).geometry.values()
    np.testing.assert_allclose(loaded.vertices, mesh.vertices.numpy(), atol=1e-6)
    assert loaded.faces.tolist() == mesh.faces.tolist()
    assert loaded.is_watertight
    assert loaded.volume == pytest.approx(0.0265, rel=0.2)
    if suffix == ".glb":  # linear, as the format defines them; beside a material trimesh keeps them as an attribute
        found, expected = loaded.visual.vertex_attributes["color"], linear_from_srgb(mesh.colors)
    else:
        found, expected = loaded.visual.vertex_colors[:, :3] / 255, mesh.colors
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-7 if suffix == ".glb" else 1 / 250)


def test_normals_point_outward():
    mesh = tetrahedron()
    outward = mesh.vertices - mesh.vertices.mean(dim=0)
    assert bool(((mesh.normals * outward).sum(dim=1) > 0).all())
    torch.testing.assert_close(mesh.normals.norm(dim=1), torch.ones(4))


def test_watertight_means_every_edge_in_both_directions():
    mesh = tetrahedron()
    assert mesh.watertight
    assert not Mesh(vertices=mesh.vertices, faces=mesh.faces[:3], colors=mesh.colors).watertight
    turned = mesh.faces.clone()
    turned[0] = turned[0].flip(0)
    assert not Mesh(vertices=mesh.vertices, faces=turned, colors=mesh.colors).watertight
    assert not Mesh(vertices=mesh.vertices, faces=mesh.faces[:0], colors=mesh.colors).watertight


def test_glb_has_the_layout_of_its_specification(tmp_path: Path):
    path = tmp_path / "head.glb"
    write_mesh(path, tetrahedron())
    blob = path.read_bytes()
    assert blob[:4] == b"glTF"
    version, length, json_length = np.frombuffer(blob[4:16], "<u4")
    assert (version, length) == (2, len(blob))
    assert json_length % 4 == 0
    document = json.loads(blob[20 : 20 + json_length])
    assert document["buffers"][0]["byteLength"] == len(blob) - 28 - json_length
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    [primitive], [material] = document["meshes"][0]["primitives"], document["materials"]
    assert primitive["material"] == 0
    # The default material would be a metal: black where nothing is mirrored.
    assert material["pbrMetallicRoughness"] == {
        "baseColorFactor": [1, 1, 1, 1],
        "metallicFactor": 0,
        "roughnessFactor": 1,
    }
    place = document["accessors"][0]
    np.testing.assert_allclose((place["min"], place["max"]), ([-0.1, -0.2, -0.3], [0.3, 0.4, 0.5]), atol=1e-7)


def test_other_endings_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"ending in \.ply, \.obj, \.glb, got '\.stl'"):
        write_mesh(tmp_path / "head.stl", tetrahedron())
    assert not list(tmp_path.iterdir())
