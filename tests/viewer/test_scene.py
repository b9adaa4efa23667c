"""State to picture: what the controls mean, and what is made again when one moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cgsgan.cameras import orbit
from cgsgan.config import config_to_dict
from cgsgan.gallery import generate_scenes, latents_from_seeds, render_views
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.latents.directions import principal_direction
from cgsgan.latents.style_space import StyleSpace
from cgsgan.training.generator_file import GENERATOR_FILE, GeneratorFile, write_generator
from cgsgan.types import Gaussians
from cgsgan.viewer.scene import Explorer, Heads, state_camera, style_groups
from cgsgan.viewer.state import State
from rasterizer import rasterize


@pytest.fixture(scope="module")
def generator() -> TrainedGenerator:
    return load_generator()


@pytest.fixture(scope="module")
def explorer(generator: TrainedGenerator) -> Explorer:
    return Explorer(Heads(generator))


@pytest.fixture
def state(explorer: Explorer) -> State:
    return replace(State.start(explorer.limits), size=64)


def write_inversion(path: Path, generator: TrainedGenerator, ws: torch.Tensor) -> Path:
    path.mkdir(parents=True)
    stored = GeneratorFile(
        config=config_to_dict(generator.config),
        images_seen=0,
        weights=generator.network.state_dict(),
        provenance={},
        heads={"ws": ws},
    )
    write_generator(path / GENERATOR_FILE, stored)
    return path


def test_the_picture_is_the_one_that_render_makes(explorer: Explorer, state: State, generator: TrainedGenerator):
    scenes = generate_scenes(generator, latents_from_seeds([5], generator.z_dim), truncation_psi=0.7)
    yaw, pitch = torch.tensor([0.5]), torch.tensor([-0.2])
    wanted = render_views(generator.renderer, scenes, orbit(yaw, pitch), size=64, background=(0.0, 0.2, 1.0))
    found = explorer.picture(
        replace(
            state,
            seed=5,
            psi=0.7,
            yaw=float(yaw.rad2deg()),
            pitch=float(pitch.rad2deg()),
            background=(0, 51, 255),
        )
    )
    assert float((found - wanted[0, 0].clamp(0, 1)).abs().max()) < 1e-6  # observed 0


def test_styles(explorer: Explorer, state: State, generator: TrainedGenerator):
    first, second = (generator.map_latents(latents_from_seeds([seed], generator.z_dim)) for seed in (0, 1))
    assert torch.equal(explorer.styles(state), first)
    torch.testing.assert_close(explorer.styles(replace(state, share=1.0)), second)
    torch.testing.assert_close(explorer.styles(replace(state, share=0.25)), first.lerp(second, 0.25))
    rows = list(explorer.layers.values())
    mixed = explorer.styles(replace(state, mixed=(False, False, True)))
    assert torch.equal(mixed[:, rows[2]], second[:, rows[2]])
    assert torch.equal(mixed[:, : rows[2].start], first[:, : rows[2].start])
    space = StyleSpace.of(generator.map_latents, generator.z_dim)
    moved = explorer.styles(replace(state, steps=(0.0, -2.0, *state.steps[2:])))
    torch.testing.assert_close(moved, first - 2 * principal_direction(space, 1))


def test_all_style_rows_belong_to_one_group(generator: TrainedGenerator):
    groups = style_groups(generator)
    rows = [row for group in groups.values() for row in range(*group.indices(1000))]
    assert rows == list(range(generator.network.num_ws))


def test_only_what_changed_is_made_again(generator: TrainedGenerator):
    explorer = Explorer(Heads(generator))
    state = replace(State.start(explorer.limits), size=64)

    def made(state: State) -> list[int]:
        before = dict(explorer.made)
        explorer.picture(state)
        return [explorer.made[name] - before[name] for name in ("styles", "scene", "picture")]

    assert made(state) == [1, 1, 1]
    assert made(state) == [0, 0, 0]
    for view in (
        {"yaw": 20.0},
        {"background": (0, 0, 0)},
        {"look": "alpha"},
        {"level": 1},
        {"scale": 0.5},
        {"size": 128},
    ):
        state = replace(state, **view)
        assert made(state) == [0, 0, 1], view
    for head in ({"seed": 3}, {"psi": 0.5}, {"share": 0.5}, {"other_seed": 9}, {"mixed": (True, False, False)}):
        state = replace(state, **head)
        assert made(state) == [1, 1, 1], head


def test_levels_scale_and_count(explorer: Explorer, state: State):
    full, coarse = explorer.scene(state), explorer.scene(replace(state, level=1, scale=0.5))
    assert (full.count, full.total) == (sum(explorer.level_sizes), sum(explorer.level_sizes))
    assert (coarse.count, coarse.total) == (explorer.level_sizes[0], full.total)
    assert isinstance(full.scenes, Gaussians)
    assert isinstance(coarse.scenes, Gaussians)
    assert torch.equal(coarse.scenes.scales, full.scenes.scales[:, : coarse.count] * 0.5)


def test_looks(explorer: Explorer, state: State):
    alpha = explorer.picture(replace(state, look="alpha", background=(255, 0, 0)))
    assert torch.equal(alpha[0], alpha[1])
    assert float(alpha[:, 32, 32].min()) > 0.9
    assert float(alpha[:, 0, 0].max()) < 0.1
    depth = explorer.picture(replace(state, look="depth", background=(255, 0, 0)))
    assert depth[:, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=0.1)  # the background
    nearer, farther = (explorer.picture(replace(state, look="depth", target=(0.0, 0.0, z))) for z in (-0.3, 0.3))
    assert float(nearer[0, 32, 32]) > float(farther[0, 32, 32])  # yellow is near, violet far


def test_normals_are_those_of_the_rasterizer_in_camera_axes(
    explorer: Explorer, state: State, generator: TrainedGenerator
):
    state = replace(state, look="normal", yaw=30.0, background=(0, 0, 0))
    scene, camera = explorer.scene(state).scenes, state_camera(state)
    assert isinstance(scene, Gaussians)
    render = rasterize(
        *(tensor.contiguous() for tensor in scene.tensors()),
        camera.viewmats,
        camera.Ks(64, 64),
        64,
        64,
        eps2d=generator.config.rendering.eps2d,
        near_plane=0.01,
        normals=True,
    )
    assert render.normals is not None
    world = torch.nn.functional.normalize(render.normals[0, 0], dim=-1)
    in_camera = torch.einsum("ij,hwj->ihw", camera.viewmats[0, 0, :3, :3], world)
    wanted = (in_camera * torch.tensor([1.0, -1.0, -1.0])[:, None, None] + 1) / 2
    opaque = render.alphas[0, 0, ..., 0] > 0.98
    found = explorer.picture(state)
    assert int(opaque.sum()) > 800
    assert float((found - wanted)[:, opaque].abs().max()) < 0.03  # observed 0.02, of what is not covered
    assert float(found[2, opaque].mean()) > 0.75  # towards the camera


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.6])
def test_a_window_of_any_shape_sees_the_same_middle(explorer: Explorer, state: State, aspect: float):
    state = replace(state, size=256)
    wide = explorer.wide_picture(state, aspect)
    assert wide.shape[-1] / wide.shape[-2] == pytest.approx(aspect, abs=0.01)
    height, square = wide.shape[-2], explorer.picture(state)
    scaled = torch.nn.functional.interpolate(square[None], size=(height, height), mode="area")[0]
    side = min(wide.shape[-1], height) // 2
    middles = []
    for picture in (wide, scaled):
        top, left = (picture.shape[-2] - side) // 2, (picture.shape[-1] - side) // 2
        middles.append(picture[:, top : top + side, left : left + side])
    assert float((middles[0] - middles[1]).abs().mean()) < 0.01  # observed 0.005, of an area average


def test_an_inversion_is_a_head_to_choose(tmp_path: Path, generator: TrainedGenerator):
    ws = generator.map_latents(latents_from_seeds([77], generator.z_dim)) + 0.1
    folder = write_inversion(tmp_path / "anna", generator, ws)
    explorer = Explorer(Heads(generator, [folder, write_inversion(tmp_path / "b" / "anna", generator, -ws)]))
    assert explorer.limits.heads == ("anna", "anna'", "seed")
    state = State.start(explorer.limits)
    assert torch.equal(explorer.styles(state), ws)
    assert torch.equal(explorer.styles(replace(state, head="anna'")), -ws)
    third = generator.map_latents(latents_from_seeds([3], generator.z_dim))
    assert torch.equal(explorer.styles(replace(state, head="seed", seed=3)), third)
    alone = Explorer(Heads(load_generator(folder)))
    assert alone.limits.heads == ("found 0", "seed")
    assert torch.equal(alone.styles(State.start(alone.limits)), ws)


def test_inversions_of_another_generator_are_refused(tmp_path: Path, generator: TrainedGenerator):
    file = tmp_path / GENERATOR_FILE
    stored = GeneratorFile(
        config=config_to_dict(generator.config), images_seen=0, weights=generator.network.state_dict(), provenance={}
    )
    write_generator(file, stored)
    with pytest.raises(ValueError, match="found no head in it"):
        Heads(generator, [file])
    folder = write_inversion(tmp_path / "other", generator, generator.map_latents(torch.zeros(1, generator.z_dim)))
    larger = TrainedGenerator(generator.network, replace(generator.config, resolution=128))
    with pytest.raises(ValueError, match="another generator"):
        Heads(larger, [folder])
