"""Progressive growing within one run (Karras et al. 2018; pi-GAN): small pictures first, then larger ones.

The discriminator has its final size from the start and sees small pictures enlarged, every pixel a square: with
``discriminator.unshuffle`` its first layer then does what that of a smaller discriminator would. What is shown follows
from the images seen alone, so a run that is resumed goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """When pictures grow. The default is not at all.

    Attributes:
        sizes: edge lengths in pixels before the final one, ascending; each is twice, four times ... smaller.
        until_kimg: each of them is shown until so many images were seen.
        fade_kimg: after each, pictures go over from the smaller size to the larger within this; 0: at once.
    """

    sizes: tuple[int, ...] = ()
    until_kimg: tuple[float, ...] = ()
    fade_kimg: float = 0.0

    def __post_init__(self) -> None:
        """Refuse schedules that do not ascend.

        Raises:
            ValueError: names the setting.
        """
        if len(self.sizes) != len(self.until_kimg):
            raise ValueError(
                f"training.growth: expected until_kimg for each of the sizes, got {len(self.sizes)} sizes and "
                f"{len(self.until_kimg)} until_kimg"
            )
        for name, values in (("sizes", self.sizes), ("until_kimg", self.until_kimg)):
            if any(a >= b for a, b in pairwise((0, *values))):
                raise ValueError(f"training.growth.{name}: expected ascending numbers > 0, got {list(values)}")
        if not 0 <= self.fade_kimg < float("inf"):
            raise ValueError(f"training.growth.fade_kimg: expected a finite number >= 0, got {self.fade_kimg}")

    def check_resolution(self, resolution: int) -> None:
        """Refuse sizes that the final one is no multiple of.

        Raises:
            ValueError: names the size.
        """
        for size in self.sizes:
            if resolution % size or size >= resolution:
                raise ValueError(
                    f"training.growth.sizes: expected sizes that fit several times into resolution {resolution}, "
                    f"got {size}"
                )

    def size(self, images_seen: int, final: int) -> int:
        """Edge length of the pictures that are made at this moment, pixels."""
        stage = self._stage(images_seen)
        return self.sizes[stage] if stage < len(self.sizes) else final

    def coarse_share(self, images_seen: int) -> float:
        """How much of the size before is left in what is shown: from 1 to 0 in the first ``fade_kimg`` of a size."""
        stage = self._stage(images_seen)
        if stage == 0 or self.fade_kimg <= 0:
            return 0.0
        return max(0.0, 1 - (images_seen / 1000 - self.until_kimg[stage - 1]) / self.fade_kimg)

    def show(
        self, images: Float[Tensor, "batch channel height width"], images_seen: int
    ) -> Float[Tensor, "batch channel height width"]:
        """Pictures of the final size as they are shown at this moment."""
        final = images.shape[-1]
        shown = coarsen(images, self.size(images_seen, final))
        share = self.coarse_share(images_seen)
        if share == 0:
            return shown
        return shown.lerp(coarsen(images, self.sizes[self._stage(images_seen) - 1]), share)

    def _stage(self, images_seen: int) -> int:
        return sum(images_seen >= kimg * 1000 for kimg in self.until_kimg)


def coarsen(
    images: Float[Tensor, "batch channel height width"], size: int
) -> Float[Tensor, "batch channel height width"]:
    """Every square of pixels its mean, so that ``size`` squares are left along a side; those that are, stay."""
    factor = images.shape[-1] // size
    return images if factor == 1 else enlarge(avg_pool2d(images, factor), images.shape[-1])


def enlarge(images: Float[Tensor, "batch channel small small"], size: int) -> Float[Tensor, "batch channel size size"]:
    """Every pixel a square."""
    return images if images.shape[-1] == size else interpolate(images, size=(size, size), mode="nearest")
