"""Every kind of generator goes through every command: what works for Gaussians has no reason to stop at a field."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cgsgan.cli import main
from cgsgan.config import ExperimentConfig, dump_config
from cgsgan.data.synthetic import SyntheticConfig, make_synthetic
from cgsgan.generators import load_generator
from cgsgan.rendering.inspection import depth_normals, normal_colors, surface_normals, turn_to_camera
from cgsgan.types import Gaussians, SdfPlanes
from cgsgan.viewer.heads import Heads
from cgsgan.viewer.scene import Explorer, state_camera
from cgsgan.viewer.state import State
from tests.tiny_experiment import tiny_config, tiny_implicit, tiny_planes, tiny_surface

KINDS: dict[str, Callable[..., ExperimentConfig]] = {
    "gaussians": tiny_config,
    "triplanes": tiny_planes,
    "sdf_planes": tiny_surface,
    "implicit": tiny_implicit,
}
SHORT = {"kimg": 0.016, "checkpoint_kimg": 0.016, "sample_kimg": 0.016, "log_kimg": 0.008}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(SyntheticConfig(count=16, resolution=32), tmp_path_factory.mktemp("data") / "heads.zip")


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of each kind, as ``cgsgan train`` leaves it."""
    folder = tmp_path_factory.mktemp(request.param)
    config = KINDS[request.param](**SHORT)
    config = replace(config, data=replace(config.data, path=str(data)))
    (folder / "tiny.yaml").write_text(dump_config(config))
    assert main(["train", str(folder / "tiny.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_pictures_films_and_figures(run: Path, data: Path, tmp_path: Path) -> None:
    shown = ["--seeds", "0-1", "--size", "16", "--frames", "2", "--show", "color", "depth", "normal", "alpha"]
    assert main(["render", str(run), "--grid", "--turntable", "webp", "--out", str(tmp_path / "r"), *shown]) == 0
    with Image.open(tmp_path / "r" / "turntable-color-depth-normal-alpha.webp") as film:
        assert film.n_frames == 2  # type: ignore[attr-defined]
    walk = ["--walk", "--turntable", "gif", "--out", str(tmp_path / "walk")]
    assert main(["render", str(run), "--seeds", "0-1", "--size", "16", "--frames", "4", *walk]) == 0
    figures = tmp_path / "figures.json"
    metrics = ["--metrics", "fid", "swd", "consistency", "--count", "8", "--batch-size", "4", "--out", str(figures)]
    assert main(["evaluate", str(run), "--data", str(data), *metrics]) == 0
    assert json.loads(figures.read_text())["figures"]["frd"]["mean"] > 0
    assert main(["report", str(run)]) == 0
    assert main(["info", str(run)]) == 0


def test_a_photo_is_found_and_edited(run: Path, tmp_path: Path) -> None:
    assert main(["render", str(run), "--seeds", "5", "--size", "32", "--grid", "--out", str(tmp_path / "r")]) == 0
    with Image.open(tmp_path / "r" / "grid.png") as grid:
        grid.convert("RGB").crop((0, 0, 32, 32)).save(tmp_path / "photo.png")
    found = tmp_path / "found"
    quick = ["--steps", "0.02", "--camera", "0,0", "--background", "white", "--out", str(found)]
    assert main(["invert", str(tmp_path / "photo.png"), str(run), *quick]) == 0
    assert main(["edit", str(found), "--towards", "seed:3", "--out", str(tmp_path / "edited")]) == 0
    assert load_generator(tmp_path / "edited").found is not None


LEVELS = {"triplanes": ["--level", "0.35"], "implicit": ["--level", "0.5"]}
"""Densities: networks of this size are all fog after 16 pictures, with nothing at the level of a skin."""


def test_a_surface(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = load_generator(run).config.generator.kind
    out = tmp_path / "head.ply"
    code = main(["mesh", str(run), str(out), "--resolution", "16", "--views", "4", *LEVELS.get(kind, [])])
    if kind == "gaussians":  # sixteen faint ones
        assert code == 2
        assert "4 views show no surface" in capsys.readouterr().err
        assert not out.exists()
    else:
        assert code == 0, capsys.readouterr().err
        assert out.exists()


def test_another_run_starts_from_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(run.parent / "tiny.yaml")
    again = ["--training.start-from", str(run), "--out", str(tmp_path / "again")]
    assert main(["train", config, *again]) == 0
    assert f"starts from {run}" in capsys.readouterr().out.replace("\n", "")
    assert load_generator(tmp_path / "again").images_seen == 16


def test_splats_of_splats_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splats = run.parent.name.startswith("gaussians")
    code = main(["export", str(run), str(tmp_path / "head.ply")])
    error = capsys.readouterr().err
    assert code == (0 if splats else 2), error
    assert splats or (error.count("\n") == 1 and "mesh" in error)


def test_what_the_explorer_draws(run: Path) -> None:
    explorer = Explorer(Heads(load_generator(run)))
    state = replace(State.start(explorer.limits), size=16)
    for look in explorer.limits.looks:
        picture = explorer.picture(replace(state, look=look))
        assert picture.shape == (3, 16, 16), look
        assert bool(picture.isfinite().all()), look


def test_normals_in_the_explorer_are_those_of_the_surface(run: Path) -> None:
    """Of signed distance they are its gradient, which depth alone does not give."""
    generator = load_generator(run)
    explorer = Explorer(Heads(generator))
    state = replace(State.start(explorer.limits), size=16, look="normal", background=(0, 0, 0))
    scenes, cameras = explorer.scene(state).scenes, state_camera(state)
    if isinstance(scenes, Gaussians):
        return  # theirs are compared in tests/viewer
    shown = generator.renderer(scenes, cameras, size=16, backgrounds=torch.zeros(1, 1, 3), depth=True)
    assert shown.depths is not None
    by_surface, by_depth = (
        (normal_colors(turn_to_camera(normals, cameras)) * shown.alphas)[0, 0].movedim(-1, 0).clamp(0, 1)
        for normals in (
            surface_normals(generator.renderer, scenes, cameras, shown.depths),
            depth_normals(shown.depths, cameras),
        )
    )
    torch.testing.assert_close(explorer.picture(state), by_surface)
    assert torch.equal(by_surface, by_depth) == (not isinstance(scenes, SdfPlanes))
