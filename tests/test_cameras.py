"""Cameras: conventions, labels, paths."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cgsgan.cameras import PATHS, Cameras, focal_of_view, invert_rigid, look_at, orbit, turntable, yaw_pitch

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


@pytest.mark.parametrize("kind", [kind for kind in PATHS if kind != "still"])
def test_turntables_close_without_repeating_a_frame(kind: str):
    yaw, pitch = yaw_pitch(turntable(48, kind=kind))
    angles = torch.stack([yaw, pitch], dim=1)
    assert len(torch.unique((angles * 1e4).round(), dim=0)) == (46 if kind == "spiral" else 48)  # it crosses itself
    steps = torch.diff(torch.cat([angles, angles[:1]]), dim=0)
    steps = torch.remainder(steps + math.pi, 2 * math.pi) - math.pi
    evenness = float(steps.norm(dim=1).max() / steps.norm(dim=1).mean())
    assert evenness < (2.8 if kind == "spiral" else 1.6)  # observed 2.69, 1.43
    # No kink anywhere, the seam included: the direction of motion changes as little there as elsewhere.
    bends = (steps - steps.roll(1, 0)).norm(dim=1)
    assert bends[0] <= 1.01 * bends.max()
    assert bends.max() < (0.11 if kind == "spiral" else 0.015)  # observed 0.105, 0.012


def test_where_the_paths_lead():
    def degrees(frames: int, **path: float | str) -> list[list[int]]:
        found = torch.stack(yaw_pitch(turntable(frames, **path)), dim=1).rad2deg()  # type: ignore[arg-type]
        return ((found + 360.5) % 360 - 0.5).round().int().tolist()

    ten = math.radians(10)
    assert degrees(4, kind="swing") == [[0, 12], [40, 0], [0, 348], [320, 0]]
    assert degrees(4, kind="swing", yaw=2 * ten, pitch=ten) == [[0, 10], [20, 0], [0, 350], [340, 0]]
    assert degrees(4, kind="orbit", pitch=ten) == [[0, 10], [90, 10], [180, 10], [270, 10]]
    assert degrees(2, kind="still", yaw=ten) == [[10, 0], [10, 0]]
    assert degrees(12, kind="spiral")[::6] == [[0, 0], [0, 348]]
    round_the_head = turntable(4, kind="ellipse", radius=2.0)
    distances = round_the_head.cam_to_world[:, :3, 3].norm(dim=1)
    torch.testing.assert_close(distances, torch.tensor([2.0, 2.6, 2.0, 2.6]))
    centre = round_the_head.viewmats @ torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(centre[:, :2], torch.zeros(4, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", PATHS)
def test_no_path_changes_the_focal_length(kind: str):
    focal = focal_of_view(20.0)
    Ks = turntable(5, kind=kind, focal=focal).Ks_normalized
    assert torch.equal(Ks, Ks[:1].expand(5, 3, 3))
    assert float(Ks[0, 0, 0]) == pytest.approx(0.5 / math.tan(math.radians(10)))


def test_turntable_refuses_unknown_paths():
    with pytest.raises(ValueError, match="one of swing, orbit, ellipse, spiral, still, got 'spin'"):
        turntable(4, kind="spin")
    with pytest.raises(ValueError, match="at least 1 frame"):
        turntable(0)
    with pytest.raises(ValueError, match="-89 to 89 degrees, got 90"):
        turntable(4, kind="orbit", pitch=math.pi / 2)
    with pytest.raises(ValueError, match=r"0\.1 to 170 degrees, got 180"):
        focal_of_view(180.0)
