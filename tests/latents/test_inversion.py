"""Inversion finds a head that a generator made, and the camera it was seen with."""

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.generators import TrainedGenerator, load_generator
from cgsgan.latents.camera_fit import PITCH_SPREAD, PITCH_WEIGHT, OrbitCameras
from cgsgan.latents.inversion import InversionConfig, Inverter
from cgsgan.latents.scene_source import SceneSource
from cgsgan.latents.start import guess_style
from cgsgan.latents.targets import Target
from cgsgan.losses.pyramid import peak_signal_to_noise, pyramid_loss

SIZE = 32
QUICK = InversionConfig(depth="w", w_steps=60, ws_steps=40, tuning_steps=40, candidates=48, angle_candidates=48)


@cache
def shipped() -> TrainedGenerator:
    return load_generator()


def seen(ws: Tensor, cameras: Cameras, network: nn.Module | None = None) -> Tensor:
    source = SceneSource(network or shipped().network, shipped().renderer)
    views = cameras.viewmats.shape[1]
    with torch.no_grad():
        return source.render(ws, cameras, torch.ones(views, 3), size=SIZE)[0].clamp(0, 1)


def head(seed: int, cameras: Cameras) -> tuple[Tensor, Target]:
    z = torch.randn(1, shipped().z_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        ws = shipped().network.mapping(z)
    return ws, Target(colors=seen(ws, cameras), background=(1.0, 1.0, 1.0))


def cameras(*degrees: tuple[float, float]) -> Cameras:
    angles = torch.tensor(degrees) * (math.pi / 180)
    return orbit(angles[:, 0], angles[:, 1]).map(lambda t: t[None])


def test_a_head_of_the_generator_is_found_again_also_from_other_sides():
    views = cameras((15.0, 5.0))
    ws, target = head(900_001, views)
    found = Inverter(shipped().network, shipped().renderer, QUICK).invert(target, views)
    assert found.network is shipped().network
    side = cameras((-20.0, 0.0), (40.0, 5.0))
    own = peak_signal_to_noise(seen(found.ws, views), target.colors)
    others = peak_signal_to_noise(seen(found.ws, side), seen(ws, side))
    mean = shipped().network.mapping.w_average.expand_as(ws)
    nothing = peak_signal_to_noise(seen(mean, side), seen(ws, side))
    assert float(own) > 24  # observed 29
    assert float(others.min()) > float(nothing.max()) + 3  # observed 25.6 against 15.8


def test_the_camera_is_found_too():
    views = cameras((-25.0, 8.0))
    _, target = head(900_002, views)
    found = Inverter(shipped().network, shipped().renderer, QUICK).invert(target)
    yaw, pitch = (math.degrees(float(angle)) for angle in yaw_pitch(found.cameras))
    assert abs(yaw + 25) < 6
    assert abs(pitch - 8) < 6


def test_each_depth_fits_better_and_tuning_leaves_the_given_generator_alone():
    views = cameras((0.0, 0.0))
    target = Target(colors=torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.4)
    before = {name: value.clone() for name, value in shipped().network.state_dict().items()}
    losses = []
    for depth in ("w", "ws", "tuned"):
        config = InversionConfig(depth=depth, w_steps=15, ws_steps=15, tuning_steps=15, candidates=8)
        found = Inverter(shipped().network, shipped().renderer, config).invert(target, views)
        losses.append(float(pyramid_loss(seen(found.ws, views, found.network), target.colors[0][None])))
    assert losses[0] > losses[1] > losses[2]
    assert all(torch.equal(before[name], value) for name, value in shipped().network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in shipped().network.parameters())


def test_tuning_is_held_to_what_the_head_was_from_other_sides():
    views, side = cameras((0.0, 0.0)), cameras((-40.0, 0.0), (40.0, 10.0))
    photo = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    moved, fit = [], []
    for keep in (0.0, 5.0):
        config = InversionConfig(w_steps=1, ws_steps=1, tuning_steps=30, candidates=8, keep_weight=keep)
        stages = list(Inverter(shipped().network, shipped().renderer, config).stages(Target(colors=photo), views))
        pivot, tuned = stages[1], stages[2]
        assert torch.equal(pivot.ws, tuned.ws)
        change = seen(tuned.ws, side, tuned.network) - seen(pivot.ws, side)
        moved.append(float(change.abs().mean()))
        fit.append(float(pyramid_loss(seen(tuned.ws, views, tuned.network), photo)))
    assert moved[1] < 0.5 * moved[0]
    assert fit[0] < fit[1]


def test_the_start_is_better_than_any_candidate():
    views = cameras((10.0, 0.0))
    _, target = head(900_005, views)
    inverter = Inverter(shipped().network, shipped().renderer, QUICK)
    candidates = inverter.space.to_styles(torch.randn(64, len(inverter.space.mean)))
    start = guess_style(inverter.source, inverter.space, candidates, target, views)
    rows = shipped().network.num_ws
    errors = [
        float((seen(one[None, None].expand(-1, rows, -1), views) - target.colors).abs().mean())
        for one in (inverter.space.to_styles(start), *candidates)
    ]
    assert errors[0] < min(errors[1:])


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds():
    views = cameras((15.0, 5.0))
    _, target = head(900_001, views)
    generator = load_generator(device="cuda")
    found = Inverter(generator.network, generator.renderer, QUICK).invert(target.to("cuda"))
    yaw, pitch = (math.degrees(float(angle)) for angle in yaw_pitch(found.cameras))
    assert abs(yaw - 15) < 6
    assert abs(pitch - 5) < 6
    assert found.ws.is_cuda


def test_several_views_and_known_coverage_are_used_together():
    views = cameras((-30.0, 0.0), (30.0, 0.0))
    ws, _ = head(900_003, views)
    scene = shipped().network(ws=ws).scenes
    black = shipped().renderer(scene, views, size=SIZE, backgrounds=torch.zeros(1, 2, 3))
    target = Target(colors=black.images[0].clamp(0, 1), alphas=black.alphas[0].movedim(-1, 1))
    steps: list[int] = []
    corners: list[Tensor] = []

    def watch(step: int, images: Tensor) -> None:
        steps.append(step * len(images))
        corners.append(images[:, :, 0, 0])

    found = Inverter(shipped().network, shipped().renderer, QUICK).invert(target, views, watch=watch)
    assert float(torch.stack(corners).mean()) > 0.9  # shown on white, though fitted on random colours
    assert steps == [2 * step for step in range(1, QUICK.w_steps + 1)]
    assert len(found.losses) == QUICK.w_steps
    assert float(peak_signal_to_noise(seen(found.ws, views), target.on(torch.ones(2, 3))).min()) > 22  # observed 27


@settings(max_examples=30, deadline=None)
@given(st.floats(-1.2, 1.2), st.floats(-0.5, 0.5))
def test_learnable_cameras_start_as_those_of_the_orbit(yaw: float, pitch: float):
    rig = OrbitCameras(torch.tensor([yaw]), torch.tensor([pitch]))
    expected = orbit(torch.tensor([yaw]), torch.tensor([pitch]))
    found = rig()
    torch.testing.assert_close(found.viewmats[0], expected.viewmats, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.Ks_normalized[0], expected.Ks_normalized)
    assert float(rig.penalty().detach()) == pytest.approx(
        PITCH_WEIGHT * (pitch / PITCH_SPREAD) ** 2, rel=1e-4, abs=1e-9
    )


def test_roll_turns_the_picture_and_keeps_the_camera_rigid():
    rig = OrbitCameras(torch.tensor([0.3]), torch.tensor([0.1]))
    with torch.no_grad():
        rig.slack[0] = torch.tensor([1.0, 1.0, 0.0, 1.0])
    camera = rig()
    rotation = camera.viewmats[0, 0, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3), atol=1e-5, rtol=0)
    assert [float(angle.detach()) for angle in yaw_pitch(camera)] == pytest.approx([0.3, 0.1], abs=1e-5)
    origin = camera.viewmats[0, 0] @ torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(origin[:3], torch.tensor([0.0, 0.0, 2.7]), atol=1e-5, rtol=0)
    assert float(rig.penalty().detach()) > 0


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps and candidates"):
        InversionConfig(w_steps=0)
