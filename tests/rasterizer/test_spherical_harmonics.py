from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from rasterizer import rasterize_reference
from rasterizer.spherical_harmonics import camera_center, evaluate_basis, evaluate_colors
from tests.rasterizer.scenes import make_cameras, make_scene


def real_harmonic(degree: int, order: int, directions: np.ndarray) -> np.ndarray:
    """Real spherical harmonics from scipy's complex ones, which carry the sign (-1)^m."""
    theta = np.arccos(directions[:, 2])
    phi = np.arctan2(directions[:, 1], directions[:, 0])
    value = sph_harm_y(degree, abs(order), theta, phi)
    if order == 0:
        return value.real
    return np.sqrt(2) * (value.real if order > 0 else value.imag)


def random_directions(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("sh_degree", range(4))
def test_basis_equals_scipy(sh_degree: int):
    directions = random_directions(50)
    expected = [
        real_harmonic(degree, order, directions.numpy())
        for degree in range(sh_degree + 1)
        for order in range(-degree, degree + 1)
    ]
    # worst seen: 6e-16
    np.testing.assert_allclose(
        evaluate_basis(directions, sh_degree).numpy(), np.stack(expected, -1), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("sh_degree", range(4))
def test_colors_are_shifted_and_cut_at_zero(sh_degree: int):
    scene = make_scene("normal", sh_degree=sh_degree, dtype=torch.float64)
    viewmat = make_cameras(dtype=torch.float64)["viewmats"][0, 0]
    coeffs = (3 * scene["colors"][0]).requires_grad_()
    colors = evaluate_colors(scene["means"][0], coeffs, viewmat, sh_degree)
    directions = scene["means"][0].numpy() - np.linalg.inv(viewmat.numpy())[:3, 3]
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    orders = [(degree, order) for degree in range(sh_degree + 1) for order in range(-degree, degree + 1)]
    values = np.full(colors.shape, 0.5) + sum(
        real_harmonic(*orders[k], directions)[:, None] * coeffs.detach().numpy()[:, k] for k in range(len(orders))
    )
    np.testing.assert_allclose(colors.detach().numpy(), np.maximum(values, 0), rtol=0, atol=1e-12)
    assert (values < 0).any()
    gradient = torch.autograd.grad(colors.sum(), coeffs)[0]
    assert (gradient[torch.from_numpy(values < 0).unsqueeze(1).expand_as(gradient)] == 0).all()


def test_camera_center_inverts_any_matrix():
    viewmat = torch.randn(4, 4, dtype=torch.float64)
    viewmat[3] = torch.tensor([0.0, 0, 0, 1])
    torch.testing.assert_close(camera_center(viewmat), torch.linalg.inv(viewmat)[:3, 3])


def test_degree_zero_is_a_plain_color():
    cameras = make_cameras(dtype=torch.float64)
    harmonic = make_scene("normal", sh_degree=0, dtype=torch.float64)
    plain = {**harmonic, "colors": (0.5 + harmonic["colors"][:, :, 0] / (2 * np.sqrt(np.pi))).clamp(min=0)}
    one = rasterize_reference(**harmonic, **cameras, width=53, height=37, sh_degree=0)[0]
    torch.testing.assert_close(one, rasterize_reference(**plain, **cameras, width=53, height=37)[0])
