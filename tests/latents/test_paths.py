"""Ways between latents."""

import math

import pytest
import torch

from cgsgan.latents.paths import closed_walk, lerp_weights, mix_styles, slerp


def test_a_walk_passes_through_its_stations_and_closes():
    stations = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    walk = closed_walk(stations, 12)
    assert walk.shape == (12, 2, 5)
    for station in range(3):
        torch.testing.assert_close(walk[4 * station], stations[station])
    # As smooth across the seam as elsewhere: second differences of a finer walk.
    fine = closed_walk(stations, 3000)
    bends = (fine.roll(-1, 0) - 2 * fine + fine.roll(1, 0)).abs().amax(dim=(1, 2))
    assert float(bends[0]) <= 1.01 * float(bends.max())
    assert float(bends.max()) < 1e-4  # a jump or a kink would be of the size of a step, 1e-3


@pytest.mark.parametrize(("stations", "frames"), [(1, 4), (2, 0)])
def test_a_walk_needs_two_stations_and_a_frame(stations: int, frames: int):
    with pytest.raises(ValueError, match="at least 2 stations and 1 frame"):
        closed_walk(torch.zeros(stations, 3), frames)


def test_slerp_keeps_to_the_circle():
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    for share in (0.0, 0.25, 0.5, 1.0):
        angle, radius = share * math.pi / 2, 2 + 2 * share
        expected = radius * torch.tensor([math.cos(angle), math.sin(angle)])
        torch.testing.assert_close(slerp(first, second, share), expected)
    torch.testing.assert_close(slerp(first, first, 0.3), first)
    near = first + torch.tensor([0.0, 1e-6])
    torch.testing.assert_close(slerp(first, near, 0.5), first + torch.tensor([0.0, 5e-7]))


def test_mixing_takes_the_rows_that_were_asked_for():
    first, second = torch.zeros(2, 4, 3), torch.ones(2, 4, 3)
    mixed = mix_styles(first, second, slice(1, 3))
    assert mixed[:, :, 0].tolist() == [[0, 1, 1, 0]] * 2
    assert float(first.sum()) == 0


def test_weights_are_joined_on_a_straight_line_and_counters_are_left_alone():
    first, second = (torch.nn.BatchNorm1d(2) for _ in range(2))
    with torch.no_grad():
        second.weight.copy_(torch.tensor([3.0, 5.0]))
        second.num_batches_tracked.add_(4)
    between = lerp_weights(first, second, 0.25)
    assert between.get_parameter("weight").tolist() == [1.5, 2.0]
    assert int(between.get_buffer("num_batches_tracked")) == 0
    assert first.weight.tolist() == [1, 1]
