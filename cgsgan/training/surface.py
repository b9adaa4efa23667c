"""What only tri-planes of signed distance need in training: three stages, and what makes their surface (WYSIWYG)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Stage = Literal["low", "sampler", "full"]
"""Small pictures with uniform samples; the same, and the sampler is trained beside them; every pixel, few samples."""


@dataclass(frozen=True, kw_only=True)
class SurfaceTrainingConfig:
    """The schedule of Trevithick et al. (2024) and its losses. Lengths of the stages are not published.

    Attributes:
        low_resolution: side in pixels of what is rendered in the first two stages. The discriminator sees it enlarged,
            and real pictures as blurred.
        low_samples: uniform samples per ray in these stages; None: as many as there are bins (``rendering.bins``).
        sampler_kimg: from here on the sampler is trained, too.
        full_kimg: from here on pictures are rendered at full size with the sampler's few samples.
        fade_kimg: so long detail that small pictures lack comes in, in real and generated ones alike.
        proposal_weight: of the sampler's cross entropy; its gradients reach the sampler alone.
        patch_size: side in pixels of the random patch of the full picture that it is taught by.
        tightness_weight: of log(mean beta / target)^2. 0 is off.
        beta_start: the target at the start, world units ...
        beta_final: ... and at the end: it falls by equal factors ...
        beta_from_kimg: ... from here on ...
        beta_kimg: ... to here.
        density_kimg: so long ``training.planes.density_weight`` holds: smoothness is for the early stage.
        eikonal_weight: of (|gradient of the distance| - 1)^2 at the points of that regulariser; not published.
        audit_factor: as many times more samples have the pictures that those of the sampler, and those of as many
            even samples, are compared with whenever there is a contact sheet. 0: they are not.
    """

    low_resolution: int = 64
    low_samples: int | None = None
    sampler_kimg: float = 8000.0
    full_kimg: float = 10000.0
    fade_kimg: float = 1000.0
    proposal_weight: float = 1.0
    patch_size: int = 64
    tightness_weight: float = 1.0
    beta_start: float = 0.1
    beta_final: float = 0.001
    beta_from_kimg: float = 0.0
    beta_kimg: float = 20000.0
    density_kimg: float = 10000.0
    eikonal_weight: float = 0.0
    audit_factor: int = 8

    def __post_init__(self) -> None:
        """Refuse schedules without a meaning.

        Raises:
            ValueError: names the field, the value and what is allowed.
        """
        for name in ("low_resolution", "patch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.surface.{name}: expected >= 1, got {getattr(self, name)}")
        for name in ("sampler_kimg", "full_kimg", "fade_kimg", "proposal_weight", "tightness_weight", "beta_from_kimg",
                     "beta_kimg", "density_kimg", "eikonal_weight"):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"training.surface.{name}: expected a finite number >= 0, got {getattr(self, name)}")
        if self.audit_factor < 0 or self.audit_factor == 1:
            raise ValueError(f"training.surface.audit_factor: expected >= 2, or 0 for none, got {self.audit_factor}")
        if self.low_samples is not None and self.low_samples < 2:
            raise ValueError(f"training.surface.low_samples: expected >= 2 or null, got {self.low_samples}")
        if not self.sampler_kimg <= self.full_kimg:
            raise ValueError(
                "training.surface.full_kimg: pictures need a sampler that has been trained; expected at least "
                f"sampler_kimg {self.sampler_kimg:g}, got {self.full_kimg:g}"
            )
        if not self.beta_from_kimg <= self.beta_kimg:
            raise ValueError(
                f"training.surface.beta_kimg: expected at least beta_from_kimg {self.beta_from_kimg:g}, got "
                f"{self.beta_kimg:g}"
            )
        if not 0 < self.beta_final <= self.beta_start < math.inf:
            raise ValueError(
                "training.surface: beta is a length > 0 in world units; expected 0 < beta_final <= beta_start, got "
                f"{self.beta_final} and {self.beta_start}"
            )

    def stage(self, images_seen: int) -> Stage:
        """Where a run stands."""
        if images_seen >= self.full_kimg * 1000:
            return "full"
        return "sampler" if images_seen >= self.sampler_kimg * 1000 else "low"

    def detail(self, images_seen: int) -> float:
        """Share of the detail beyond ``low_resolution`` that is shown: from ``full_kimg`` on it rises."""
        passed = images_seen - self.full_kimg * 1000
        if passed < 0 or self.fade_kimg == 0:
            return float(passed >= 0)
        return min(passed / (self.fade_kimg * 1000), 1.0)

    def beta_target(self, images_seen: int) -> float:
        """What the rendered mean beta is driven to, world units."""
        length = (self.beta_kimg - self.beta_from_kimg) * 1000
        passed = images_seen - self.beta_from_kimg * 1000
        share = min(max(passed / length, 0.0), 1.0) if length > 0 else float(passed >= 0)
        return self.beta_start * (self.beta_final / self.beta_start) ** share
