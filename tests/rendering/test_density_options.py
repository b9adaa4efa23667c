"""pi-GAN's options of volume rendering: activation, fading noise, an opaque end."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from cgsgan.cameras import orbit
from cgsgan.rendering.jitter import normal_samples, pixel_keys
from cgsgan.rendering.marching import activate_density, close_end, interval_weights
from cgsgan.rendering.volume import VolumeConfig, VolumeRenderer
from cgsgan.training.schedules import density_noise
from tests.rendering.fields import field_scenes


def test_activations() -> None:
    raw = torch.linspace(-3, 3, 7, dtype=torch.float64)
    assert torch.equal(activate_density(raw, "relu"), raw.clamp_min(0))
    torch.testing.assert_close(activate_density(raw), torch.log1p(torch.exp(raw - 1)), atol=1e-12, rtol=0)


def test_weights_by_relu_and_an_opaque_end() -> None:
    raw = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    distances = torch.linspace(2, 3, 9, dtype=torch.float64).expand(5, 9)
    weights = interval_weights(raw, distances, "relu")
    for ray, ours in zip(raw.numpy(), weights.numpy()):
        left, expected = 1.0, []
        for a, b in pairwise(ray):
            opacity = 1 - np.exp(-max((a + b) / 2, 0) / 8)
            expected.append(left * opacity)
            left *= 1 - opacity
        np.testing.assert_allclose(ours, expected, atol=1e-9)  # observed 3e-10: the floor of what is let through
        closed = close_end(torch.tensor(ours))
        np.testing.assert_allclose(closed.numpy()[:-1], ours[:-1])
        assert float(closed.sum()) == pytest.approx(1)


def test_noise_is_normal_and_belongs_to_its_place() -> None:
    keys = pixel_keys(torch.arange(4), torch.arange(1024), stream=2)
    values = normal_samples(keys, 12)
    assert kstest(values.double().flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(values.flatten(0, 1).T.numpy()) - np.eye(12)).max() < 0.06
    assert torch.equal(normal_samples(keys[1:2, 7:8], 12), values[1:2, 7:8])


def test_noise_fades_linearly() -> None:
    assert [density_noise(seen, initial=2.0, kimg=1.0) for seen in (0, 250, 1000, 5000)] == [2.0, 1.5, 0.0, 0.0]
    assert density_noise(0, initial=2.0, kimg=0.0) == 0.0


def test_pictures_with_noise_do_not_depend_on_chunks_and_samples_stay() -> None:
    scenes = field_scenes(lambda x: (x.sum(-1, keepdim=True) * 3, x.clamp(0, 1)), batch=2)
    cameras = orbit(*torch.rand(2, 2, 1, generator=torch.Generator().manual_seed(1)))
    seeds = torch.tensor([[5], [9]])

    def draw(noise: float, points: int = 1 << 20) -> torch.Tensor:
        config = VolumeConfig(samples=5, importance_samples=4, points_at_once=points, density_activation="relu")
        renderer = VolumeRenderer(config, 8).for_training(8, seeds, density_noise=noise)
        return renderer(scenes, cameras, size=8, backgrounds=torch.rand(2, 1, 3) * 0).images

    whole = draw(1.0)
    torch.testing.assert_close(draw(1.0, 200), whole, atol=1e-6, rtol=0)  # observed 6e-8
    still = draw(0.0)
    assert (whole - still).abs().mean() > 1e-3
    torch.testing.assert_close(draw(1e-7), still, atol=1e-5, rtol=0)  # the same samples, or it would jump


def test_an_opaque_end_hides_the_background() -> None:
    scenes = field_scenes(lambda x: (x[..., :1] * 0 - 5, x.clamp(0, 1)))
    config = VolumeConfig(samples=8, importance_samples=4, density_activation="relu", opaque_end=True)
    angles = torch.zeros(1, 1)
    output = VolumeRenderer(config, 8)(scenes, orbit(angles, angles), size=8, backgrounds=torch.ones(1, 1, 3))
    torch.testing.assert_close(output.alphas, torch.ones_like(output.alphas))


@pytest.mark.parametrize("name", ["density_noise", "density_noise_kimg"])
def test_bad_noise(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a finite number >= 0, got -1.0"):
        VolumeConfig(**{name: -1.0})  # type: ignore[arg-type]
