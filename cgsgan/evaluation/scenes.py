"""What is measured: a generator that may have been told from where it will be looked at."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.rendering.renderer import Renderer
from cgsgan.types import SceneOutput, Scenes


@runtime_checkable
class SceneSource(Protocol):
    """A generator that may have been told from where it will be looked at.

    Attributes:
        z_dim: length of a latent.
        resolution: size of its pictures, pixels.
    """

    z_dim: int
    resolution: int

    @property
    def renderer(self) -> Renderer:
        """Draws its scenes."""
        ...

    def __call__(self, z: Float[Tensor, "batch z_dim"], conditioning: Cameras) -> Scenes:
        """Scenes; ``conditioning`` (``[batch]``) is what the mapping network sees of cameras, if it sees any."""
        ...


@runtime_checkable
class RenderableGenerator(Protocol):
    """What is asked of a generator: ``experiment.TrainedGenerator``."""

    @property
    def z_dim(self) -> int:
        """Length of a latent."""
        ...

    @property
    def resolution(self) -> int:
        """Size of its pictures, pixels."""
        ...

    @property
    def renderer(self) -> Renderer:
        """Draws its scenes."""
        ...

    @property
    def conditioned(self) -> bool:
        """Whether its mapping network looks at cameras."""
        ...

    def __call__(
        self, z: Float[Tensor, "batch z_dim"], *, truncation_psi: float, camera_labels: Float[Tensor, "batch 25"] | None
    ) -> SceneOutput:
        """Scenes."""
        ...


class GeneratorScenes:
    """A trained generator as a :class:`SceneSource`."""

    def __init__(self, generator: RenderableGenerator, truncation_psi: float = 1.0) -> None:
        self.generator = generator
        self.truncation_psi = truncation_psi
        self.z_dim, self.resolution = generator.z_dim, generator.resolution

    @property
    def renderer(self) -> Renderer:
        """See :class:`SceneSource`."""
        return self.generator.renderer

    def __call__(self, z: Float[Tensor, "batch z_dim"], conditioning: Cameras) -> Scenes:
        """See :class:`SceneSource`."""
        labels = conditioning.to_labels() if self.generator.conditioned else None
        return self.generator(z, truncation_psi=self.truncation_psi, camera_labels=labels).scenes
