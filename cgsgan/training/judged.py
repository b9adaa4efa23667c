"""Pictures on their way to the discriminator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class JudgedImages:
    """Pictures of a generator's step for the discriminator's step, or real ones.

    Attributes:
        images: one view of each identity, in [0, 1].
        camera_labels: the labels they were rendered with.
        raw_images: what was rendered before super-resolution, in [0, 1], for a dual discriminator. None for real
            pictures: theirs are made when the resolution is known.
        logits: what the discriminator said of them, with its graph, when it has been asked already.
        z: latents that fakes were made from.
        pose: what the discriminator took for their yaw and pitch, if it tells and has been asked.
        latent: the same of their latents.
    """

    images: Float[Tensor, "batch 3 height width"]
    camera_labels: Float[Tensor, "batch 25"]
    raw_images: Float[Tensor, "batch 3 raw_height raw_width"] | None = None
    logits: Float[Tensor, "batch 1"] | None = None
    z: Float[Tensor, "batch z_dim"] | None = None
    pose: Float[Tensor, "batch 2"] | None = None
    latent: Float[Tensor, "batch z_dim"] | None = None

    @property
    def parts(self) -> list[Tensor]:
        """The pictures, and the raw ones if there are any."""
        return [self.images] if self.raw_images is None else [self.images, self.raw_images]

    def map(self, function: Callable[[Tensor], Tensor]) -> JudgedImages:
        """The same with ``function`` applied to every tensor (indexing, ``detach``...)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if value is not None})
