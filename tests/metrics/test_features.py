from __future__ import annotations

import numpy as np
import pytest
import torch

from cgsgan.metrics.features import FEATURE_COUNT, network_weights, random_features

EXPECTED_FIRSTS = [-0.17739509, 0.02843917, 0.06899109]
EXPECTED_SUMS = [0.62239, 17.25363, -10.10371]


def some_images(count: int = 6, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_weights_are_the_published_yardstick() -> None:
    weights = network_weights()
    assert [tuple(w.shape) for w in weights] == [(32, 3, 3, 3), (64, 32, 3, 3), (48, 64, 3, 3)]
    # First draws and sums of the definition; if these change, old and new figures cannot be compared.
    firsts = [float(w.flatten()[0]) for w in weights]
    sums = [float(w.double().sum()) for w in weights]
    assert firsts == pytest.approx(EXPECTED_FIRSTS, rel=1e-6)
    assert sums == pytest.approx(EXPECTED_SUMS, rel=1e-5)


def test_features_do_not_depend_on_torchs_seed_or_the_batch_size() -> None:
    images = some_images()
    torch.manual_seed(1)
    first = random_features(images)
    torch.manual_seed(2)
    second = random_features(images, batch_size=2)
    assert first.shape == (6, FEATURE_COUNT)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)  # worst observed 0


def test_matches_an_independent_numpy_convolution() -> None:
    image = some_images(1)
    hidden = image[0].double().numpy() * 2 - 1
    for weight in network_weights():
        padded = np.pad(hidden, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
        hidden = np.einsum("chwij,ocij->ohw", windows, weight.double().numpy())
        hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
    expected = hidden.reshape(48, 2, 2, 2, 2).mean(axis=(2, 4)).reshape(-1)
    np.testing.assert_allclose(random_features(image)[0], expected, atol=1e-5)  # worst observed 4e-7


def test_larger_pictures_are_box_reduced() -> None:
    small = some_images()
    large = small.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
    torch.testing.assert_close(random_features(large), random_features(small), atol=1e-5, rtol=0)


def test_layout_counts() -> None:
    images = some_images()
    images[..., :16] = 1.0
    assert (random_features(images) - random_features(images.flip(-1))).abs().max() > 0.05


@pytest.mark.parametrize("shape", [(2, 3, 32, 64), (2, 3, 48, 48), (2, 3, 16, 16)])
def test_refuses_other_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        random_features(torch.zeros(shape))
