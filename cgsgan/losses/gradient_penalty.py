"""R1: the zero-centred gradient penalty on real images (Mescheder et al. 2018, eq. 9)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def r1_penalty(
    real_logits: Float[Tensor, "batch 1"], *real_images: Float[Tensor, "batch 3 _height _width"]
) -> Float[Tensor, " batch"]:
    """Squared norm of the gradient of D with respect to each real image, before ``gamma / 2``; for a dual
    discriminator the sum of those of both pictures.

    Args:
        real_logits: D(real_images), with its graph.
        real_images: what D saw, in [-1, 1], requiring gradients; one batch, or the final and the raw one. The range
            matters: the published gammas hold for images in [-1, 1] and would have to be divided by 4 for images in
            [0, 1].
    """
    gradients = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    first, *others = [gradient.square().sum(dim=(1, 2, 3)) for gradient in gradients]
    return sum(others, first)
