"""What is sorted between the CUDA stages: depths of Gaussians, then tiles of instances; equal keys keep their order.

torch sorts (CUB's radix sort, on a GPU): the one part of the CUDA core that is not in its own kernels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from rasterizer.cuda_abi import SHORT_KEY_BIAS

LARGEST_SHORT = torch.iinfo(torch.int16).max + SHORT_KEY_BIAS


def order_by_depth(sort_depths: Float[Tensor, "image n"]) -> Int64[Tensor, "image n"]:
    """Gaussian at each rank of each image, nearest first; equal depths by index, +infinity last."""
    return torch.sort(sort_depths, dim=1, stable=True).indices


def choose_key_type(largest: int) -> torch.dtype:
    """The narrowest type for keys from 0 to ``largest``: a radix sort passes over a short key half as often.

    int16 holds the key less ``SHORT_KEY_BIAS``, so that its whole range is used and 65535 still fits.
    """
    return torch.int16 if largest <= LARGEST_SHORT else torch.int32


def store_key(key: int, key_type: torch.dtype) -> int:
    """The number that stands for ``key`` in a tensor of keys."""
    return key - SHORT_KEY_BIAS if key_type == torch.int16 else key


def order_by_tile(keys: Int[Tensor, " instance"]) -> tuple[Int[Tensor, " instance"], Int64[Tensor, " instance"]]:
    """Keys ascending, and the slot that each came from; equal keys by slot, which is front to back."""
    sorted_keys, slots = torch.sort(keys, stable=True)
    return sorted_keys, slots
