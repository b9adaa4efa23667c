"""Schedules as functions of images seen."""

from __future__ import annotations

import math

import torch

from cgsgan.training.ema import make_ema, update_ema
from cgsgan.training.schedules import blur, blur_sigma, ema_beta, learning_rate_factor, passed


def test_blur_fades_linearly_to_nothing():
    assert blur_sigma(0, initial=10.0, fade_kimg=200.0) == 10
    assert math.isclose(blur_sigma(50_000, initial=10.0, fade_kimg=200.0), 7.5)
    assert blur_sigma(300_000, initial=10.0, fade_kimg=200.0) == 0
    assert blur_sigma(0, initial=10.0, fade_kimg=0.0) == 0


def test_blur_has_the_published_taps_and_keeps_constants():
    sigma, radius = 1.5, 4
    image = torch.zeros(1, 3, 21, 23)
    image[0, :, 10, 11] = 1
    taps = torch.tensor([2.0 ** -((i / sigma) ** 2) for i in range(-radius, radius + 1)])
    taps = taps / taps.sum()
    blurred = blur(image, sigma)
    expected = torch.outer(taps, taps)
    torch.testing.assert_close(blurred[0, 1, 6:15, 7:16], expected, atol=1e-7, rtol=1e-5)
    assert blurred.sum() > 2.999
    torch.testing.assert_close(blur(torch.full((1, 3, 8, 8), 0.3), 10.0), torch.full((1, 3, 8, 8), 0.3))
    assert blur(image, 0.2) is image


def test_learning_rate_falls_at_the_end_only():
    factor = lambda seen: learning_rate_factor(seen, total_kimg=10.0, decay_kimg=4.0, final=0.1)  # noqa: E731
    assert factor(0) == factor(6000) == 1
    assert math.isclose(factor(8000), 0.55)
    assert math.isclose(factor(10_000), 0.1)
    assert math.isclose(factor(12_000), 0.1)
    assert learning_rate_factor(9999, total_kimg=10.0, decay_kimg=0.0, final=0.0) == 1


def test_ema_half_life_and_ramp_up():
    beta = ema_beta(10**9, batch_size=32, halflife_kimg=10.0, rampup=0.05)
    assert math.isclose(beta ** (10_000 / 32), 0.5)
    early = ema_beta(6400, batch_size=32, halflife_kimg=10.0, rampup=0.05)
    assert math.isclose(early ** (6400 * 0.05 / 32), 0.5)


def test_update_ema_interpolates_parameters_and_copies_buffers():
    network = torch.nn.BatchNorm1d(3)
    ema = make_ema(network)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(2.0)
    update_ema(ema, network, 0.75)
    torch.testing.assert_close(ema.weight, torch.full((3,), 1.5))
    torch.testing.assert_close(ema.running_mean, torch.full((3,), 2.0))
    assert not ema.training
    assert not ema.weight.requires_grad


def test_odd_intervals_are_counted():
    assert passed(8, 24, 0.0005)
    assert passed(8, 24, 0.02)
    assert not passed(8, 24, 1e9)
    assert not passed(20, 24, 0.02)
