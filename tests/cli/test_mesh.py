"""``cgsgan mesh`` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import trimesh

from cgsgan.cli import main


def test_the_generator_that_comes_along_makes_a_mesh(tmp_path: Path, capsys):
    out = tmp_path / "head.ply"
    assert main(["mesh", str(out), "--seed", "3", "--resolution", "24", "--views", "8"]) == 0
    said = capsys.readouterr()
    assert f"wrote {out}: " in said.out
    assert "watertight, y up, face along +z" in said.out
    assert "views: 8/8" in said.err
    head = trimesh.load(out, process=False)
    assert head.is_watertight
    assert 0.01 < head.volume < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["head.stl"], "expected a file ending in .ply, .obj, .glb"),
        (["a", "b", "c.glb"], "expected [RUN_OR_CHECKPOINT] OUT.glb, got 3 files"),
        (["head.glb", "--resolution", "1"], "resolution: expected 2 to 1024"),
        (["head.glb", "--views", "0"], "--views: expected at least 1"),
        (["head.glb", "--seed", "-1"], "--seed"),
        (["nowhere", "head.glb"], "nowhere"),
        (["head.glb", "--level", "5"], "--level: is a density of a field"),
        (["head.glb", "--method", "density"], "use --method views"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["mesh", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
