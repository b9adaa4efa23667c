"""What every distance between sets of features asks of them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor


def finite_features(
    asking: str, features: Float[Tensor, "sample feature"], *, at_least: int = 2
) -> Float64[np.ndarray, "sample feature"]:
    """The features in float64.

    Raises:
        ValueError: names ``asking`` for fewer than ``at_least`` samples, or NaN and Inf.
    """
    values = features.detach().cpu().double().numpy()
    if len(values) < at_least:
        raise ValueError(f"{asking}: expected at least {at_least} samples, got {len(values)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{asking}: expected finite features, got NaN or Inf")
    return values
