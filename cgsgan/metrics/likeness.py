"""Whether two pictures of one scene are more alike than pictures of different ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cgsgan.metrics.checks import finite_features


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Cosines of features of pairs of pictures.

    Attributes:
        same: mean over pairs of views of one scene, in [-1, 1].
        other: mean over pairs of views of two scenes.
        told_apart: probability that a pair of one scene is more alike than a pair of two (the area under the ROC
            curve); 0.5 when the features cannot tell scenes apart, 1 when they always do.
    """

    same: float
    other: float
    told_apart: float


def compare_likeness(
    first: Float[Tensor, "scene feature"], second: Float[Tensor, "second_scene second_feature"]
) -> Likeness:
    """Pairs of one scene (row i of both) against all pairs of two scenes (row i of the first, j of the second).

    With features of a face recognition network this is the multi-view identity consistency of EG3D (Chan et al. 2022,
    section 5), set against strangers: a cosine alone says little about a network that finds all heads alike.

    Args:
        first: features of every scene from one camera, at least 2 scenes.
        second: features of the same scenes from another.

    Raises:
        ValueError: for fewer scenes, sets that do not fit each other, NaN and Inf, or features that are all 0.
    """
    if first.shape != second.shape:
        raise ValueError(f"compare_likeness: expected equal shapes, got {[*first.shape]} and {[*second.shape]}")
    a, b = (finite_features("compare_likeness", features) for features in (first, second))
    lengths = [np.linalg.norm(values, axis=1, keepdims=True) for values in (a, b)]
    if min(float(length.min()) for length in lengths) == 0:
        raise ValueError("compare_likeness: features that are all 0 have no direction")
    cosines = (a / lengths[0]) @ (b / lengths[1]).T
    of_one = np.diag(cosines)
    of_two = np.sort(cosines[~np.eye(len(a), dtype=bool)])
    below, not_above = (np.searchsorted(of_two, of_one, side=side) for side in ("left", "right"))
    return Likeness(
        same=float(of_one.mean()),
        other=float(of_two.mean()),
        told_apart=float((below + not_above).mean() / 2 / len(of_two)),
    )
