"""Which number formats the networks compute in; see README, "Precision"."""

from __future__ import annotations

import torch


def set_tf32(allowed: bool, device: torch.device) -> None:
    """Let matrix products and convolutions of float32 on a GPU round their factors to 11 bits (TensorFloat-32), or not.

    Torch's own default allows it for convolutions only; published networks were trained without.

    Args:
        allowed: for the whole process; backward passes follow.
        device: nothing is changed unless it is a CUDA device.
    """
    if device.type != "cuda":
        return
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
