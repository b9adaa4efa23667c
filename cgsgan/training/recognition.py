"""The part of both players' objective that a discriminator with heads for pose and latent adds."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from cgsgan.losses.recognition import latent_error, pose_error, view_angles
from cgsgan.training.judged import JudgedImages
from cgsgan.training.settings import LossConfig


def recognition_loss(fakes: JudgedImages, loss: LossConfig) -> tuple[Float[Tensor, ""] | None, dict[str, Tensor]]:
    """Weighted errors of what a discriminator recognised of fakes.

    Args:
        fakes: with its judgement; with their latents for a discriminator that tells those.
        loss: weights.

    Returns:
        The loss, None for a discriminator without such heads; and the errors by name, without weights and gradients.
    """
    errors: dict[str, Tensor] = {}
    weights = {"pose_error": loss.pose_weight, "latent_error": loss.latent_weight}
    if fakes.pose is not None:
        errors["pose_error"] = pose_error(fakes.pose, view_angles(fakes.camera_labels))
    if fakes.latent is not None:
        assert fakes.z is not None, "fakes for a discriminator that tells latents must come with theirs"
        errors["latent_error"] = latent_error(fakes.latent, fakes.z)
    total = None
    for name, error in errors.items():
        total = error * weights[name] if total is None else total + error * weights[name]
    return total, {name: error.detach() for name, error in errors.items()}
