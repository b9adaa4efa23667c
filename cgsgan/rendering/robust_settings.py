"""How tri-planes of signed distance are rendered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cgsgan.rendering.plane_sampling import PlaneAxes
from cgsgan.rendering.volume_settings import FEWEST_SAMPLES

RaySampler = Literal["robust", "stratified", "unstratified", "uniform", "importance"]


@dataclass(frozen=True, kw_only=True)
class RobustConfig:
    """How tri-planes of signed distance are rendered. The defaults are WYSIWYG's, in EG3D's space for faces.

    Attributes:
        kind: tells this from the renderers of other scenes.
        near: where rays begin, world units along the ray.
        far: where they end.
        box_warp: side of the cube around the origin that the planes cover, world units.
        plane_axes: ``corrected`` has planes xy, xz and zy; ``official`` xy, xz and zx.
        probe_resolution: pixels along a side of the small picture that the proposal network sees.
        bins: equal parts of a ray: samples of the probe, and probabilities of a proposal.
        samples: per ray in training, at every pixel of the picture.
        strata: equal parts of the robust distribution; random samples are spread evenly over them.
        nucleus: probability that the bins which are kept must hold together, (0, 1].
        inference_samples: per ray outside training, at most pixels.
        inference_wide_samples: likewise at the pixels whose sets of bins are widest.
        wide_share: of the pixels of a picture, that are rendered so.
        sampler: ``robust``: within the nucleus, flattened, in strata. To see what that is worth: ``stratified``: from
            the proposal as it is, in strata; ``unstratified``: from it, independent; and without any proposal
            ``uniform`` and ``importance`` (two passes, one half of the samples each).
        points_at_once: the memory bound: that many points are looked at together (but always a whole ray of a scene).
            Where gradients are needed and this is not enough for all, chunks are computed again in the backward pass.
    """

    kind: Literal["robust"] = "robust"
    near: float = 2.25
    far: float = 3.3
    box_warp: float = 1.0
    plane_axes: PlaneAxes = "corrected"
    probe_resolution: int = 128
    bins: int = 192
    samples: int = 20
    strata: int = 16
    nucleus: float = 0.98
    inference_samples: int = 16
    inference_wide_samples: int = 32
    wide_share: float = 0.1
    sampler: RaySampler = "robust"
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
        if not 0 < self.nucleus <= 1:
            raise ValueError(f"nucleus: expected a probability in (0, 1], got {self.nucleus}")
        if not 0 <= self.wide_share <= 1:
            raise ValueError(f"wide_share: expected a share of the pixels, [0, 1], got {self.wide_share}")
        if self.sampler not in get_args(RaySampler):
            raise ValueError(f"sampler: expected one of {', '.join(get_args(RaySampler))}, got {self.sampler!r}")
        for name, least in (
            ("probe_resolution", 1),
            ("bins", FEWEST_SAMPLES),
            ("strata", 1),
            ("points_at_once", 1),
            ("samples", self._fewest_samples),
            ("inference_samples", self._fewest_samples),
            ("inference_wide_samples", self._fewest_samples),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if self.sampler in {"robust", "stratified"} and self.samples < self.strata:
            raise ValueError(
                f"samples, strata: expected at least one sample per stratum, got {self.samples} samples for "
                f"{self.strata} strata; raise samples or lower strata"
            )

    @property
    def bin_length(self) -> float:
        """World units."""
        return (self.far - self.near) / self.bins

    @property
    def mean_inference_samples(self) -> float:
        """Per ray: 17.6 by default."""
        wide = self.wide_share
        return (1 - wide) * self.inference_samples + wide * self.inference_wide_samples

    @property
    def _fewest_samples(self) -> int:
        return {"importance": 2 * FEWEST_SAMPLES, "unstratified": 2, "uniform": 1}.get(self.sampler, 2)
