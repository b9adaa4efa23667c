"""Where the cameras of fakes come from: the labels of the data, or a prior, for data without labels (pi-GAN; Chan et
al. 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import FOCAL_NORMALIZED, ORBIT_RADIUS, orbit


@dataclass(frozen=True, kw_only=True)
class AngleConfig:
    """How one angle of the cameras is drawn; all in degrees.

    Attributes:
        mean: its middle.
        std: standard deviation of normal angles. The default is pi-GAN's yaw of faces, 0.3 radians.
        limit: normal angles end this far from the middle (farther ones are put there), and so do uniform ones.
        uniform_share: of cameras whose angle is uniform; the rest is normal. 0 is all normal, 1 all uniform.
    """

    mean: float = 0.0
    std: float = 17.2
    limit: float = 90.0
    uniform_share: float = 0.0

    def check(self, name: str, largest: float) -> None:
        """Refuse values without a meaning.

        Args:
            name: of the angle, for messages.
            largest: it must stay within this, degrees.

        Raises:
            ValueError: names the field, the value and what is allowed.
        """
        if not 0 <= self.uniform_share <= 1:
            raise ValueError(f"training.poses.{name}.uniform_share: expected 0 to 1, got {self.uniform_share}")
        if not 0 <= self.std < math.inf:
            raise ValueError(f"training.poses.{name}.std: expected a finite number of degrees >= 0, got {self.std}")
        if not (self.limit >= 0 and abs(self.mean) + self.limit <= largest):
            raise ValueError(
                f"training.poses.{name}: expected limit >= 0 and |mean| + limit <= {largest:g} degrees, got mean "
                f"{self.mean:g} and limit {self.limit:g}"
            )

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Angles in radians; as many random numbers are used up whatever the settings."""
        uniform = self.limit * (2 * torch.rand(count, generator=generator) - 1)
        normal = (self.std * torch.randn(count, generator=generator)).clamp(-self.limit, self.limit)
        chosen = torch.rand(count, generator=generator) < self.uniform_share
        return torch.deg2rad(self.mean + torch.where(chosen, uniform, normal))


@dataclass(frozen=True, kw_only=True)
class PoseConfig:
    """Cameras of fakes.

    Attributes:
        source: ``labels`` of pictures of the data, drawn at random, or the ``prior`` below; then nothing looks at
            labels, and a set needs none (``data.labels: false``).
        yaw: positive moves the camera to +x.
        pitch: positive moves it up. The default spread is pi-GAN's for faces, 0.155 radians.
        radius: distance of the cameras from ``target``, world units.
        target: what they look at, world units. +y is up in every picture.
        focal: focal length over image size.
    """

    source: Literal["labels", "prior"] = "labels"
    yaw: AngleConfig = field(default_factory=AngleConfig)
    pitch: AngleConfig = field(default_factory=lambda: AngleConfig(std=8.9, limit=60.0))
    radius: float = ORBIT_RADIUS
    target: tuple[float, ...] = (0.0, 0.0, 0.0)
    focal: float = FOCAL_NORMALIZED

    def __post_init__(self) -> None:
        """Refuse values without a meaning.

        Raises:
            ValueError: names the field, the value and what is allowed.
        """
        self.yaw.check("yaw", 180.0)
        self.pitch.check("pitch", 89.0)
        for name in ("radius", "focal"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"training.poses.{name}: expected a finite number > 0, got {getattr(self, name)}")
        if len(self.target) != 3 or not all(math.isfinite(value) for value in self.target):
            raise ValueError(f"training.poses.target: expected three finite numbers, got {list(self.target)}")

    def check_use(self, *, labelled: bool, x_flip: bool, lookers: dict[str, bool]) -> None:
        """Refuse a source that the rest of an experiment cannot be trained with.

        Args:
            labelled: the data has cameras.
            x_flip: the data has mirror images.
            lookers: settings that make a network look at cameras, and whether they are on.

        Raises:
            ValueError: names both.
        """
        if self.source == "labels":
            if not labelled:
                raise ValueError(
                    "data.labels: false leaves fakes without cameras; set training.poses.source: prior and the angles "
                    "of your pictures below training.poses"
                )
            return
        looking = [name for name, on in lookers.items() if on]
        if looking:
            raise ValueError(
                f"training.poses.source: prior is for networks that do not look at cameras; set {looking[0]}: false"
            )
        if x_flip and self.yaw.mean != 0:
            raise ValueError(
                f"training.poses.yaw.mean: expected 0 with data.x_flip, whose mirror images are seen from the other "
                f"side, got {self.yaw.mean:g}"
            )


class PosePrior:
    """A pool of cameras (``training.draws.LabelPool``) that is a distribution of poses.

    Args:
        config: the distribution.
    """

    def __init__(self, config: PoseConfig) -> None:
        self.config = config

    @staticmethod
    def of(config: PoseConfig) -> PosePrior | None:
        """That of an experiment whose fakes have cameras of a prior; None for one with labels."""
        return PosePrior(config) if config.source == "prior" else None

    def sample_labels(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 25"]:
        """``count`` cameras at random, independently, as labels; a function of ``generator``'s state alone."""
        config = self.config
        yaw, pitch = config.yaw.draw(count, generator), config.pitch.draw(count, generator)
        around = orbit(yaw, pitch, radius=config.radius, focal=config.focal)
        cam_to_world = around.cam_to_world.clone()
        cam_to_world[:, :3, 3] += torch.tensor(config.target)
        return torch.cat([cam_to_world.flatten(1), around.Ks_normalized.flatten(1)], dim=1)
