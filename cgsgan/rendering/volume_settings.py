"""How tri-planes and implicit fields are rendered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cgsgan.rendering.marching import DensityActivation
from cgsgan.rendering.plane_sampling import PlaneAxes

FEWEST_SAMPLES = 4
"""Per ray: importance sampling leaves out the first and the last of the intervals between them."""


@dataclass(frozen=True, kw_only=True)
class VolumeConfig:
    """How tri-planes and implicit fields are rendered. The defaults are EG3D's for faces.

    Attributes:
        kind: tells this from the renderers of other scenes.
        near: where rays begin, world units along the ray.
        far: where the last stratum of a ray begins.
        box_warp: side of the cube around the origin that the planes cover, world units.
        plane_axes: ``corrected`` has planes xy, xz and zy; ``official`` xy, xz and zx, as published weights need.
        samples: along each ray in the first pass of training, stratified.
        importance_samples: in the second pass, where the first found something; 0 for a single pass.
        inference_samples: ``samples`` outside training; None for the same number.
        inference_importance_samples: ``importance_samples`` outside training; None for the same number.
        neural_resolution: rendered pixels along a side when the scenes have a super-resolution; without one, pictures
            are rendered at the size that is asked for.
        white_back: with a super-resolution, empty space is white in all features; otherwise black.
        backgrounds_behind_refined: with a super-resolution, lay pictures on the backgrounds too, by coverage; what it
            adds counts by coverage, too. Published networks paint the background into the volume, and what is asked
            for does not enter their pictures.
        frontal_colors: outside training, colours of an implicit field that depend on the view are those seen from the
            front, so that turntables show one thing.
        density_activation: makes densities of raw ones: ``shifted_softplus`` (EG3D) or ``relu`` (pi-GAN).
        density_noise: standard deviation of the noise on raw densities at the start of training; it falls linearly ...
        density_noise_kimg: ... to 0 within this. Never outside training.
        opaque_end: the last sample of a ray takes all light that is left, so that no background shows.
        points_at_once: the memory bound: that many points are looked at together (but always a whole ray of a scene).
            Where gradients are needed and this is not enough for all, chunks are computed again in the backward pass.
    """

    kind: Literal["volume"] = "volume"
    near: float = 2.25
    far: float = 3.3
    box_warp: float = 1.0
    plane_axes: PlaneAxes = "corrected"
    samples: int = 48
    importance_samples: int = 48
    inference_samples: int | None = None
    inference_importance_samples: int | None = None
    neural_resolution: int = 64
    white_back: bool = False
    backgrounds_behind_refined: bool = False
    frontal_colors: bool = True
    density_activation: DensityActivation = "shifted_softplus"
    density_noise: float = 0.0
    density_noise_kimg: float = 0.0
    opaque_end: bool = False
    points_at_once: int = 1 << 20

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered.

        Raises:
            ValueError: names the setting.
        """
        if not 0 <= self.near < self.far < float("inf"):
            raise ValueError(f"near, far: expected 0 <= near < far, got {self.near} and {self.far}")
        if not 0 < self.box_warp < float("inf"):
            raise ValueError(f"box_warp: expected a length > 0 in world units, got {self.box_warp}")
        for name in ("density_noise", "density_noise_kimg"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a finite number >= 0, got {getattr(self, name)}")
        for name, least in (
            ("samples", FEWEST_SAMPLES),
            ("importance_samples", 0),
            ("inference_samples", FEWEST_SAMPLES),
            ("inference_importance_samples", 0),
            ("neural_resolution", 1),
            ("points_at_once", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if self.white_back and self.backgrounds_behind_refined:
            raise ValueError("white_back, backgrounds_behind_refined: expected at most one of them, got both")

    def sample_counts(self, *, training: bool) -> tuple[int, int]:
        """Samples of the first and of the second pass."""
        if training:
            return self.samples, self.importance_samples
        first, second = self.inference_samples, self.inference_importance_samples
        return (
            self.samples if first is None else first,
            self.importance_samples if second is None else second,
        )
