"""Cameras: conventions, labels, paths."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cgsgan.cameras import Cameras, invert_rigid, look_at, orbit, turntable, yaw_pitch

ANGLES = st.floats(-1.4, 1.4)


def test_the_frontal_camera_is_the_one_of_the_format():
    label = orbit(torch.zeros(()), torch.zeros(())).to_labels()
    expected = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    torch.testing.assert_close(label, torch.tensor(expected))


def test_signs_of_yaw_and_pitch():
    right = orbit(torch.tensor(0.3), torch.tensor(0.0)).cam_to_world[:3, 3]
    above = orbit(torch.tensor(0.0), torch.tensor(0.3)).cam_to_world[:3, 3]
    assert right[0] > 0.5
    assert above[1] > 0.5


def test_the_origin_projects_to_the_principal_point_and_up_is_up():
    cameras = orbit(torch.tensor([0.4, -0.9]), torch.tensor([0.2, -0.3]))
    points = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.1, 0.0, 1.0]])
    seen = torch.einsum("vij,nj->vni", cameras.viewmats, points)[..., :3]
    pixels = torch.einsum("vij,vnj->vni", cameras.Ks(200, 100), seen)
    pixels = pixels[..., :2] / pixels[..., 2:]
    torch.testing.assert_close(pixels[:, 0], torch.tensor([[100.0, 50.0]] * 2), atol=1e-3, rtol=0)
    assert (pixels[:, 1, 1] < 50).all()  # +y in the world is towards the top row


@given(yaw=ANGLES, pitch=ANGLES, radius=st.floats(0.5, 10))
@settings(deadline=None)
def test_labels_and_angles_round_trip(yaw: float, pitch: float, radius: float):
    cameras = orbit(torch.tensor(yaw), torch.tensor(pitch), radius=radius)
    again = Cameras.from_labels(cameras.to_labels())
    torch.testing.assert_close(again.viewmats, cameras.viewmats, atol=2e-6 * radius, rtol=0)
    found_yaw, found_pitch = yaw_pitch(again)
    torch.testing.assert_close(found_yaw, torch.tensor(yaw), atol=1e-5, rtol=0)
    torch.testing.assert_close(found_pitch, torch.tensor(pitch), atol=1e-5, rtol=0)


def test_invert_rigid_is_the_inverse():
    cameras = orbit(torch.tensor([0.5, 2.0]), torch.tensor([0.1, -0.4]))
    torch.testing.assert_close(
        invert_rigid(cameras.viewmats) @ cameras.viewmats, torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0
    )


def test_looking_straight_down_is_refused():
    with pytest.raises(ValueError, match="straight up or down"):
        look_at(torch.tensor([0.0, 2.0, 0.0]))


@pytest.mark.parametrize("kind", ["swing", "orbit"])
def test_turntables_close_without_repeating_a_frame(kind: str):
    yaw, pitch = yaw_pitch(turntable(12, kind=kind))
    angles = torch.stack([yaw, pitch], dim=1)
    assert len(torch.unique((angles * 1e4).round(), dim=0)) == 12
    steps = torch.diff(torch.cat([angles, angles[:1]]), dim=0)
    steps = torch.remainder(steps + math.pi, 2 * math.pi) - math.pi
    assert steps.norm(dim=1).max() < 1.6 * steps.norm(dim=1).mean()


def test_turntable_refuses_unknown_paths():
    with pytest.raises(ValueError, match="'swing' or 'orbit', got 'spin'"):
        turntable(4, kind="spin")
    with pytest.raises(ValueError, match="at least 1 frame"):
        turntable(0)
