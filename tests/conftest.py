"""Every test starts from the same seeds; tests marked ``gpu`` are skipped where there is no CUDA device.

The processes of ``pytest -n 2`` take one thread each: two that take two each wait for one another most of the time.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from tests.chromium import chromium  # noqa: F401  (a fixture)

SEED = 20240917
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


# A hook, not a fixture: it also covers fixtures, and hypothesis objects to function-scoped fixtures.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: torch.cuda.is_available() is False")
