"""Our formulas and torch-fidelity's on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cgsgan.metrics import frechet_distance, kernel_distance, precision_recall, unbiased_mmd

REQUIRED = 1e-3
"""Relative. Worst observed: FID 2e-9, KID 2e-4 (torch-fidelity's is float32 there), precision and recall 4e-8."""


@pytest.fixture(scope="module")
def fidelity(torchvision_imports: None):
    pytest.importorskip("torch_fidelity")
    from torch_fidelity import metric_fid, metric_kid, metric_prc

    return {"fid": metric_fid, "kid": metric_kid, "prc": metric_prc}


def feature_sets(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 features like an extractor's: positive, correlated, some dimensions nearly dead."""
    g = torch.Generator().manual_seed(len(case))
    real_count, fake_count, size, shift = {
        "near": (700, 600, 64, 0.02), "far": (500, 500, 48, 0.6), "fewer than features": (100, 120, 192, 0.1),
    }[case]  # fmt: skip
    mix = torch.randn(size, size, generator=g) * torch.logspace(0, -3, size)
    real = torch.randn(real_count, size, generator=g) @ mix
    fake = torch.randn(fake_count, size, generator=g) @ (mix * (1 + shift)) + shift
    return real.relu() * 0.3, fake.relu() * 0.3


CASES = ["near", "far", "fewer than features"]


@pytest.mark.parametrize("case", CASES)
def test_frechet(fidelity, case: str):
    real, fake = feature_sets(case)
    statistics = [fidelity["fid"].fid_features_to_statistics(f.double()) for f in (fake, real)]
    expected = fidelity["fid"].fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=REQUIRED)


@pytest.mark.parametrize("case", CASES)
def test_kernel_on_the_whole_sets(fidelity, case: str):
    """One subset of everything leaves nothing to chance."""
    real, fake = feature_sets(case)
    count = min(len(real), len(fake))
    real, fake = real[:count], fake[:count]
    options = {"kid_subsets": 1, "kid_subset_size": count, "verbose": False}
    expected = fidelity["kid"].kid_features_to_metric(fake, real, **options)["kernel_inception_distance_mean"]
    assert kernel_distance(real, fake, subsets=1, subset_size=count).mean == pytest.approx(expected, rel=REQUIRED)


@pytest.mark.parametrize("case", CASES)
def test_kernel_mean_and_deviation_over_the_same_subsets(fidelity, case: str):
    real, fake = feature_sets(case)
    options = {"kid_subsets": 20, "kid_subset_size": 80, "rng_seed": 7, "verbose": False}
    expected = fidelity["kid"].kid_features_to_metric(fake.double(), real.double(), **options)
    random = np.random.RandomState(7)
    draws = [[torch.from_numpy(random.choice(len(f), 80, replace=False)) for f in (fake, real)] for _ in range(20)]
    ours = [unbiased_mmd(real[r], fake[f]) for f, r in draws]
    assert np.mean(ours) == pytest.approx(expected["kernel_inception_distance_mean"], rel=REQUIRED)
    assert np.std(ours) == pytest.approx(expected["kernel_inception_distance_std"], rel=REQUIRED)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_precision_and_recall(fidelity, case: str, neighbors: int):
    real, fake = feature_sets(case)
    options = {"prc_neighborhood": neighbors, "save_cpu_ram": False, "verbose": False}
    expected = fidelity["prc"].prc_features_to_metric(fake.double(), real.double(), **options)
    ours = precision_recall(real, fake, neighbors=neighbors, chunk=77)
    assert ours.precision == pytest.approx(expected["precision"], rel=REQUIRED)
    assert ours.recall == pytest.approx(expected["recall"], rel=REQUIRED)
