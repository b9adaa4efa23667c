"""torch-fidelity and timm import torchvision, whose operators are built for one torch and load with no other.

PyPI's torchvision is built for CUDA: beside a CPU build of torch its operators are missing, and its import fails where
it describes ``nms`` and ``qnms``. Nothing here calls them, so declaring them is enough to run everything else for real.
"""

from __future__ import annotations

import importlib
import importlib.util

import pytest
import torch

_KEPT: list[torch.library.Library] = []


def declare_missing_operators() -> None:
    if importlib.util.find_spec("torchvision") is None or _KEPT:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # what it declares lives as long as it does


@pytest.fixture(scope="session")
def torchvision_imports() -> None:
    declare_missing_operators()
