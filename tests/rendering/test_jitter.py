"""Hashed random numbers: the known sequence, uniform, independent of neighbours, the same in every batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from cgsgan.rendering.jitter import pixel_keys, uniform_samples
from tests.rendering.plain_volume import uniform

PUBLISHED = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
"""The first outputs of SplitMix64 for the seed 1234567, as its implementations publish them."""


def test_the_sequence_of_a_key_is_splitmix64():
    ours = uniform_samples(torch.tensor([1234567]), len(PUBLISHED))[0]
    assert ours.tolist() == [(value >> 40) / 2**24 for value in PUBLISHED]


def test_keys_and_samples_are_those_of_plain_integers():
    seeds = torch.tensor([0, 7, -3, 2**63 - 1])
    values = uniform_samples(pixel_keys(seeds, torch.tensor([0, 1, 4095]), stream=1), 5)
    for (b, p, s), value in np.ndenumerate(values.numpy()):
        assert value == uniform(int(seeds[b]), 1, (0, 1, 4095)[p], s)


@pytest.fixture(scope="module")
def values() -> torch.Tensor:
    """Of 4 neighbouring seeds, 2 streams, 32 x 32 pixels, 48 samples: [stream, seed, pixel, sample]."""
    seeds, pixels = torch.arange(4), torch.arange(32 * 32)
    return torch.stack([uniform_samples(pixel_keys(seeds, pixels, stream=s), 48) for s in range(2)])


def test_values_are_uniform(values: torch.Tensor):
    assert 0 <= float(values.min()) < 1e-4
    assert 1 - 1e-4 < float(values.max()) < 1
    assert kstest(values.double().flatten().numpy(), "uniform").pvalue > 1e-3
    lowest = (values.double() * 2**24).long() & 0xFF  # the low bits are as good as the high ones
    counts = torch.bincount(lowest.flatten(), minlength=256).double()
    expected = values.numel() / 256
    assert chi2.sf(float(((counts - expected) ** 2 / expected).sum()), 255) > 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_neighbours_are_independent(values: torch.Tensor, axis: int):
    first = values.narrow(axis, 0, values.shape[axis] - 1).double().flatten()
    second = values.narrow(axis, 1, values.shape[axis] - 1).double().flatten()
    count = len(first)
    for a, b in ((first, second), (first, (second - 0.5).square()), ((first - 0.5).square(), (second - 0.5).square())):
        correlation = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
        assert abs(correlation) < 4 / count**0.5, (axis, correlation)
    joint = torch.bincount((first * 16).long() * 16 + (second * 16).long(), minlength=256).double()
    assert chi2.sf(float(((joint - count / 256) ** 2 / (count / 256)).sum()), 255) > 1e-3


def test_a_pixel_keeps_its_numbers_in_every_batch(values: torch.Tensor):
    alone = uniform_samples(pixel_keys(torch.tensor([2]), torch.arange(7, 9), stream=0), 48)
    assert torch.equal(alone[0], values[0, 2, 7:9])


@pytest.mark.gpu
def test_a_gpu_makes_the_same_numbers():
    seeds, pixels = torch.tensor([5, -9, 2**62]), torch.arange(64)
    here = uniform_samples(pixel_keys(seeds, pixels, stream=1), 9)
    there = uniform_samples(pixel_keys(seeds.cuda(), pixels.cuda(), stream=1), 9)
    assert torch.equal(here, there.cpu())
