from __future__ import annotations

import pytest
import torch

from cgsgan.metrics.pose import PICTURE_SIZE, PoseEstimator, pose_errors, reduce_pictures, teach_pose


def discs(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose poses are seen at once: a disc of a random colour, to the left by yaw and up by pitch."""
    generator = torch.Generator().manual_seed(seed)
    angles = (torch.rand(count, 2, generator=generator) - 0.5) * torch.tensor([1.6, 0.8])
    centre = 15.5 + 10 * torch.stack([angles[:, 0], -angles[:, 1]], dim=1)
    places = torch.arange(PICTURE_SIZE).float()
    distance = (places[None, None] - centre[:, :1, None]).square() + (places[None, :, None] - centre[:, 1:, None]) ** 2
    color = torch.rand(count, 3, 1, 1, generator=generator) * 0.7
    cover = torch.sigmoid(2 * (5 - distance.sqrt()))[:, None]
    return cover * color + (1 - cover), angles


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return teach_pose(*discs(400))


def test_it_learns_where_heads_look_and_other_pictures_confirm_it(estimator: PoseEstimator):
    errors = pose_errors(estimator, *discs(200, seed=1))
    # Standard deviations are 26 and 13 degrees: always answering the mean would be wrong by 23 and 11.
    assert errors.mean(dim=0)[0] < 1  # observed 0.37
    assert errors.mean(dim=0)[1] < 1  # observed 0.19


def test_a_turned_head_is_off_by_its_turn(estimator: PoseEstimator):
    pictures, angles = discs(200, seed=1)
    turned = angles + torch.tensor([torch.pi / 6, 0.0])
    assert float(pose_errors(estimator, pictures, turned).mean(dim=0)[0]) == pytest.approx(30, abs=1.5)
    assert float(pose_errors(estimator, pictures, turned + 2 * torch.pi)[:, 0].mean()) == pytest.approx(30, abs=1.5)


def test_the_same_estimator_whatever_the_threads_and_the_random_state():
    pictures, angles = discs(40)
    threads = torch.get_num_threads()
    states = []
    for count in (1, 2):
        torch.set_num_threads(count)
        torch.manual_seed(count)
        before = torch.random.get_rng_state()
        states.append(teach_pose(pictures, angles).state_dict())
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_reduction():
    images = torch.rand(2, 3, 64, 64)
    expected = images.reshape(2, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    torch.testing.assert_close(reduce_pictures(images), expected)
    with pytest.raises(ValueError, match="multiple of 32"):
        reduce_pictures(torch.rand(1, 3, 40, 40))


def test_misuse():
    pictures, angles = discs(4)
    with pytest.raises(ValueError, match="at least 2 pictures"):
        teach_pose(pictures[:1], angles[:1])
    with pytest.raises(ValueError, match="the same yaw or pitch"):
        teach_pose(pictures, angles[:1].expand(4, 2))
