"""Errors of recognised poses and latents against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import torch

from cgsgan.cameras import Cameras, orbit, yaw_pitch
from cgsgan.losses.recognition import latent_error, pose_error, view_angles


def test_angles_are_those_of_cameras_that_look_at_the_origin_and_do_not_move_with_them():
    yaw, pitch = torch.tensor([-2.9, -0.4, 0.0, 1.2, 3.1]), torch.tensor([0.3, -1.2, 0.0, 0.5, 1.4])
    labels = orbit(yaw, pitch, radius=3.0).to_labels()
    torch.testing.assert_close(view_angles(labels), torch.stack([yaw, pitch], dim=1), atol=2e-6, rtol=0)
    torch.testing.assert_close(
        view_angles(labels), torch.stack(yaw_pitch(Cameras.from_labels(labels)), dim=1), atol=2e-6, rtol=0
    )
    moved = labels.clone()
    moved[:, [3, 7, 11]] += torch.tensor([0.5, -1.0, 2.0])
    assert torch.equal(view_angles(moved), view_angles(labels))


def test_errors_are_mean_squares_around_the_circle():
    rng = np.random.default_rng(4)
    found, true = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    expected = np.square(np.angle(np.exp(1j * (found - true)))).mean()
    assert abs(float(pose_error(torch.from_numpy(found), torch.from_numpy(true))) - expected) < 1e-14
    # 170 and -170 degrees are 20 apart, not 340.
    apart = pose_error(torch.tensor([[math.radians(170), 0.0]]), torch.tensor([[math.radians(-170), 0.0]]))
    assert abs(float(apart) - math.radians(20) ** 2 / 2) < 1e-6
    z, guess = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    difference = abs(float(latent_error(torch.from_numpy(guess), torch.from_numpy(z))) - np.square(guess - z).mean())
    assert difference < 1e-14


def test_the_gradient_of_a_pose_leads_the_short_way_round():
    found = torch.tensor([[3.0, 0.1]], dtype=torch.float64, requires_grad=True)
    pose_error(found, torch.tensor([[-3.0, 0.0]], dtype=torch.float64)).backward()
    assert found.grad is not None
    # d/dx of mean over two angles of (x - y + 2 pi k)^2 is the difference itself.
    np.testing.assert_allclose(found.grad.numpy(), [[6.0 - 2 * math.pi, 0.1]], atol=1e-12)
