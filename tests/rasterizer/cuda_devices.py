"""Where the CUDA kernels run in a test: emulated on the CPU in every run, and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from rasterizer.cuda_autograd import rasterize_cuda
from tests.rasterizer.emulated import emulated_rasterize

Rasterizer = Callable[..., tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]]

DEVICES = ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)]


def rasterize_on_gpu(**arguments: Any) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]:
    """``rasterize_cuda`` for CPU tensors: inputs and outputs cross over, and so do gradients."""
    moved = {name: value.cuda() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    colors, alphas, depths, info = rasterize_cuda(**moved)
    return colors.cpu(), alphas.cpu(), None if depths is None else depths.cpu(), info


RASTERIZERS: dict[str, Rasterizer] = {"emulated": emulated_rasterize, "cuda": rasterize_on_gpu}
