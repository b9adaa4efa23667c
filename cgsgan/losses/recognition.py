"""What a discriminator recognises of fakes: from where they are seen, and the latent they were made from.

Both players minimise the error (InfoGAN, Chen et al. 2016, section 5; pi-GAN, Chan et al. 2021): the discriminator
learns to read pose and latent, the generator to make pictures in which they can be read.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def view_angles(camera_labels: Float[Tensor, "batch 25"]) -> Float[Tensor, "batch 2"]:
    """Yaw and pitch of the direction from which a camera looks, radians; wherever it stands.

    Of cameras that look at the origin they are those of :func:`cgsgan.cameras.yaw_pitch`.
    """
    x, y, z = (-camera_labels[:, :16].unflatten(1, (4, 4))[:, :3, 2]).unbind(1)
    return torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))], dim=1)


def pose_error(found: Float[Tensor, "batch 2"], true: Float[Tensor, "batch 2"]) -> Float[Tensor, ""]:
    """Mean square of the difference of yaw and pitch, radians; each taken around the circle, so at most pi."""
    difference = torch.remainder(found - true + math.pi, 2 * math.pi) - math.pi
    return difference.square().mean()


def latent_error(found: Float[Tensor, "batch z_dim"], true: Float[Tensor, "batch z_dim"]) -> Float[Tensor, ""]:
    """Mean square of the difference of latents: 1 for who always says 0, as they are standard normal."""
    return (found - true).square().mean()
