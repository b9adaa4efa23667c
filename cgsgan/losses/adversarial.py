"""The non-saturating logistic GAN objective (Goodfellow et al. 2014; as used by StyleGAN2 and CGS-GAN), and the
relativistic pairing one (Jolicoeur-Martineau 2018; with penalties on both kinds of pictures, Huang et al. 2024, R3GAN).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def generator_loss(fake_logits: Float[Tensor, "batch 1"]) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(D(fake)): what the generator minimises."""
    return softplus(-fake_logits).mean()


def discriminator_loss_fake(fake_logits: Float[Tensor, "batch 1"]) -> Float[Tensor, ""]:
    """Mean of -log(1 - sigmoid(D(fake))): the half of the discriminator's loss that sees fakes."""
    return softplus(fake_logits).mean()


def discriminator_loss_real(real_logits: Float[Tensor, "batch 1"]) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(D(real)): the half of the discriminator's loss that sees real images."""
    return softplus(-real_logits).mean()


def relativistic_generator_loss(
    fake_logits: Float[Tensor, "batch 1"], real_logits: Float[Tensor, "batch 1"]
) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(D(fake) - D(real)) over pairs of one fake and one real image."""
    return softplus(real_logits - fake_logits).mean()


def relativistic_discriminator_loss(
    fake_logits: Float[Tensor, "batch 1"], real_logits: Float[Tensor, "batch 1"]
) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(D(real) - D(fake)) over the same pairs."""
    return softplus(fake_logits - real_logits).mean()
