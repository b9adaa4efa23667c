"""Generators that are ready to use: a network, the renderer its scenes were trained with, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.cameras import FOCAL_NORMALIZED, ORBIT_RADIUS, Cameras, orbit
from cgsgan.config import ConfigError, ExperimentConfig, parse_config
from cgsgan.gallery import WHITE, generate_scenes, latents_from_seeds, render_views
from cgsgan.models.gaussian_generator import GaussianGenerator, GaussianGeneratorConfig
from cgsgan.models.implicit.generator import ImplicitGenerator, ImplicitGeneratorConfig
from cgsgan.models.triplane.generator import TriPlaneGenerator, TriPlaneGeneratorConfig
from cgsgan.models.triplane.sdf import SdfGenerator, SdfGeneratorConfig
from cgsgan.rendering.renderer import Renderer
from cgsgan.rendering.robust import RobustRenderer
from cgsgan.rendering.robust_settings import RobustConfig
from cgsgan.rendering.splatting import SplattingConfig, SplattingRenderer
from cgsgan.rendering.volume import VolumeConfig, VolumeRenderer
from cgsgan.training.checkpoint import find_generator
from cgsgan.training.generator_file import read_generator
from cgsgan.types import SceneOutput, Scenes, as_batch

Network = GaussianGenerator | TriPlaneGenerator | ImplicitGenerator | SdfGenerator


class TrainedGenerator(nn.Module):
    """A generator with everything that is needed to look at what it makes.

    Attributes:
        network: latents to scenes.
        config: the experiment it comes from.
        renderer: draws its scenes as they were drawn in training, at any size.
        images_seen: how long it was trained.
        provenance: data, licence and command, as far as its file names them.
        found: styles of heads that were found in photographs, when it comes from ``cgsgan invert``.
    """

    found: Tensor | None

    def __init__(
        self,
        network: Network,
        config: ExperimentConfig,
        images_seen: int = 0,
        provenance: dict[str, str] | None = None,
        found: Float[Tensor, "head num_ws w_dim"] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("found", found, persistent=False)
        self.network = network
        self.config = config
        self.images_seen = images_seen
        self.provenance = provenance or {}
        self.renderer = build_renderer(config, images_seen)

    @property
    def z_dim(self) -> int:
        """Length of a latent."""
        return self.network.z_dim

    @property
    def resolution(self) -> int:
        """The image size it was trained at, pixels."""
        return self.config.resolution

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.network.parameters()).device

    @property
    def conditioned(self) -> bool:
        """Whether the mapping network looks at cameras."""
        return bool(getattr(self.config.generator, "camera_conditioning", False))

    @property
    def dilation(self) -> float:
        """The renderer's dilation as a standard deviation in world units at the data's camera distance.

        A viewer that does not know the training size shows the same picture when this is added to the scales.

        Raises:
            ValueError: for scenes that are not splatted.
        """
        rendering = self.config.rendering
        if not isinstance(rendering, SplattingConfig):
            raise ValueError("this generator makes no Gaussians, so none of their properties")
        pixel = ORBIT_RADIUS / (FOCAL_NORMALIZED * self.resolution)
        return rendering.eps2d**0.5 * pixel

    @property
    def draws_background(self) -> bool:
        """Whether its pictures have backgrounds of their own, as a super-resolution makes them (published EG3D)."""
        config = self.config.generator
        behind = isinstance(self.config.rendering, VolumeConfig) and self.config.rendering.backgrounds_behind_refined
        return isinstance(config, TriPlaneGeneratorConfig) and config.superresolution is not None and not behind

    @torch.no_grad()
    def sample(self, seeds: int | Sequence[int], *, truncation_psi: float | int = 1.0) -> Scenes:
        """Heads of seeds, one scene each: Gaussians, tri-planes or fields. A seed is the same head everywhere, in
        ``cgsgan render --seeds`` too.

        >>> heads = cgsgan.load_generator().sample([3, 5], truncation_psi=0.7)
        >>> len(heads.means)
        2

        Args:
            seeds: one or more.
            truncation_psi: 1 is full variety, 0 the average head.
        """
        z = latents_from_seeds([seeds] if isinstance(seeds, int) else seeds, self.z_dim)
        return generate_scenes(self, z.to(self.device), truncation_psi=float(truncation_psi))

    @torch.no_grad()
    def render(
        self,
        scenes: Scenes,
        cameras: Cameras,
        *,
        size: int | None = None,
        background: tuple[float, float, float] = WHITE,
    ) -> Float[Tensor, "batch view 3 size size"]:
        """Pictures of scenes from every camera, as they were drawn in training.

        >>> generator = cgsgan.load_generator()
        >>> images = generator.render(generator.sample(3), cgsgan.turntable(4), size=128)
        >>> cgsgan.save_image("front.png", images[0, 0])

        Args:
            scenes: a batch, or one scene of Gaussians.
            cameras: ``[view]``, the same for all scenes.
            size: width and height in pixels; None: the training size.
            background: RGB in [0, 1].
        """
        return render_views(
            self.renderer, as_batch(scenes), cameras, size=size or self.resolution, background=background
        )

    def map_latents(
        self, z: Float[Tensor, "batch z_dim"], *, truncation_psi: float = 1.0
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Styles of latents; a generator that looks at cameras is told the front."""
        labels = frontal_label(z) if self.conditioned else None
        return self.network.mapping(z, camera_labels=labels, truncation_psi=truncation_psi)

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"] | None = None,
        *,
        ws: Float[Tensor, "batch num_ws w_dim"] | None = None,
        truncation_psi: float = 1.0,
        camera_labels: Float[Tensor, "batch 25"] | None = None,
    ) -> SceneOutput:
        """Scenes for latents ``z``, or for ``ws`` that were mapped before.

        Args:
            z: latents.
            ws: styles.
            truncation_psi: 1 for full variety.
            camera_labels: what a generator that looks at cameras is told; None: the front, so that a scene does not
                depend on where it is seen from.

        Raises:
            ValueError: for labels that the generator does not look at.
        """
        if not self.conditioned:
            if camera_labels is not None:
                raise ValueError("this generator does not look at cameras; expected camera_labels None")
            return self.network(z, ws=ws, truncation_psi=truncation_psi)
        if z is not None and camera_labels is None:
            camera_labels = frontal_label(z)
        return self.network(z, ws=ws, truncation_psi=truncation_psi, camera_labels=camera_labels)


def frontal_label(z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch 25"]:
    """The label of a camera in front of the face, for each latent."""
    front = z.new_zeros(len(z))
    return orbit(front, front).to_labels()


def build_generator(
    config: GaussianGeneratorConfig | TriPlaneGeneratorConfig | ImplicitGeneratorConfig | SdfGeneratorConfig,
) -> Network:
    """The generator of a config, with fresh weights."""
    if isinstance(config, SdfGeneratorConfig):
        return SdfGenerator(config)
    if isinstance(config, ImplicitGeneratorConfig):
        return ImplicitGenerator(config)
    return TriPlaneGenerator(config) if isinstance(config, TriPlaneGeneratorConfig) else GaussianGenerator(config)


def build_renderer(config: ExperimentConfig, images_seen: int = 0) -> Renderer:
    """The renderer of an experiment.

    Args:
        config: of the experiment.
        images_seen: how long its generator was trained. One that stopped before its sampler was in use is looked at
            without it, in every bin; 0 is no such generator: it was never trained, or nobody knows how long.
    """
    if isinstance(config.rendering, SplattingConfig):
        return SplattingRenderer(config.rendering, training_size=config.resolution)
    if isinstance(config.rendering, RobustConfig):
        renderer = RobustRenderer(config.rendering, training_size=config.resolution)
        early = images_seen > 0 and config.training.surface.stage(images_seen) != "full"
        return renderer.with_sampler("uniform", config.rendering.bins) if early else renderer
    return VolumeRenderer(config.rendering, training_size=config.resolution)


def load_generator(
    path: Path | str | None = None, *, device: torch.device | str = "cpu", best: bool = False
) -> TrainedGenerator:
    """A ready generator from a run folder, a checkpoint folder or a ``generator.safetensors``.

    >>> generator = cgsgan.load_generator()
    >>> generator.resolution
    64

    Args:
        path: a run folder means its newest checkpoint; None the generator that comes with the package.
        device: where to put it.
        best: of a run folder, the checkpoint with the best score (``training.evaluate_kimg``) instead of the newest.

    Raises:
        ValueError: when there is none, or it is damaged or of another kind.
    """
    file = find_generator(path, best=best)
    stored = read_generator(file)
    config = parse_config(stored.config, source=str(file))
    network = build_generator(config.generator)
    try:
        network.load_state_dict(stored.weights)
    except RuntimeError as error:
        raise ConfigError(f"{file}: its weights do not fit its config ({' '.join(str(error).split())})") from None
    generator = TrainedGenerator(network, config, stored.images_seen, stored.provenance, stored.heads.get("ws"))
    return generator.eval().requires_grad_(False).to(device)
