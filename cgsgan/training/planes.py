"""What only tri-plane generators need in training: posing, density regularisation, a growing neural resolution."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlaneTrainingConfig:
    """Training parts of EG3D (Chan et al. 2022); those of a published run are in ``configs/eg3d_ffhq512.yaml``.

    Attributes:
        swap_start: for a generator that looks at cameras: probability that it is told the camera of another picture
            than the one it is seen from, at the start ...
        swap_final: ... and after ``swap_kimg``, linearly. It is told the first of several views.
        swap_kimg: 0: ``swap_final`` from the start.
        density_weight: weight of the mean difference of densities at neighbouring points. 0 is off.
        density_interval: steps between its updates, each multiplied by it (lazy regularisation).
        density_points: pairs of points per scene.
        density_distance: standard deviation of the distance between the points of a pair along each axis, world units.
        density_half_side: first points are uniform in a cube of twice this, world units. Published is 1, so seven of
            eight points lie outside the planes of faces, where there is nothing to regularise.
        final_neural_resolution: side in pixels of what is rendered before super-resolution, after ``fade_kimg``; it
            grows linearly from ``rendering.neural_resolution``. None: it stays.
        fade_kimg: see there.
    """

    swap_start: float = 1.0
    swap_final: float = 0.5
    swap_kimg: float = 1000.0
    density_weight: float = 0.0
    density_interval: int = 4
    density_points: int = 1000
    density_distance: float = 0.004
    density_half_side: float = 1.0
    final_neural_resolution: int | None = None
    fade_kimg: float = 1000.0

    def __post_init__(self) -> None:
        """Refuse values without a meaning.

        Raises:
            ValueError: names the field, the value and what is allowed.
        """
        for name in ("swap_start", "swap_final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"training.planes.{name}: expected a probability, got {getattr(self, name)}")
        for name in ("swap_kimg", "fade_kimg", "density_weight", "density_distance", "density_half_side"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"training.planes.{name}: expected a finite number >= 0, got {getattr(self, name)}")
        for name in ("density_interval", "density_points"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.planes.{name}: expected >= 1, got {getattr(self, name)}")
        if self.final_neural_resolution is not None and self.final_neural_resolution < 1:
            raise ValueError(
                f"training.planes.final_neural_resolution: expected >= 1 or null, got {self.final_neural_resolution}"
            )
