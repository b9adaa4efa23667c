from __future__ import annotations

import numpy as np
import pytest
import torch

from cgsgan.metrics.neighbors import GREY, head_distances, share_below


def heads(count: int, seed: int, hard: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(count, 4, 6, 5, generator=generator)
    if hard:
        pictures[:, 3] = (pictures[:, 3] > 0.5).float()
    pictures[:, :3] *= pictures[:, 3:]
    return pictures


@pytest.mark.parametrize("hard", [True, False])
def test_equals_a_sum_over_pixels(hard: bool):
    a, b = heads(4, 0, hard), heads(3, 1, hard)
    found = head_distances(a, b)
    for i, one in enumerate(a.double().numpy()):
        for j, other in enumerate(b.double().numpy()):
            on_grey = [p[:3] + GREY * (1 - p[3:]) for p in (one, other)]
            weight = 1 - (1 - one[3]) * (1 - other[3])
            expected = np.sqrt(((on_grey[0] - on_grey[1]) ** 2).sum() / (3 * weight.sum()))
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-5)


def test_the_background_does_not_count_and_a_missing_head_does():
    small = torch.zeros(1, 4, 8, 8)
    small[:, :, 2:4, 2:4] = torch.tensor([1.0, 1.0, 1.0, 1.0])[:, None, None]
    darker = small.clone()
    darker[:, :3] *= 0.9
    assert float(head_distances(small, darker)) == pytest.approx(0.1, rel=1e-5)  # whatever the size of the background
    assert float(head_distances(small, torch.zeros_like(small))) == pytest.approx(1 - GREY, rel=1e-5)
    assert float(head_distances(small, small)) == 0


def test_copies_of_large_pictures_come_out_as_copies():
    pictures = torch.rand(20, 4, 64, 64, generator=torch.Generator().manual_seed(2))
    pictures[:, :3] *= pictures[:, 3:]
    found = head_distances(pictures, pictures)
    assert float(found.diagonal().max()) < 1e-3  # observed 2e-4: rounding of |a|^2 - 2ab + |b|^2
    assert float(found.fill_diagonal_(1).min()) > 0.1


def test_shares():
    values = torch.arange(100.0)
    assert share_below(values, values, 0.05) == pytest.approx(0.05, abs=0.01)
    assert share_below(values - 200, values, 0.05) == 1
    assert share_below(values + 200, values, 0.05) == 0
