"""Published state dicts to our networks in their official form, with what is dead or defective in them.

Sizes and variants are inferred from the shapes. Every key must be known, every expected key there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.interop import cgsgan_keys, discriminator_keys, eg3d_keys
from cgsgan.interop.eg3d_pictures import PictureGenerator
from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official_form import OfficialForm
from cgsgan.models.discriminator import Discriminator
from cgsgan.models.gaussian_generator import GaussianGenerator
from cgsgan.models.triplane.generator import TriPlaneGenerator
from cgsgan.rendering.plane_sampling import PlaneAxes
from cgsgan.rendering.volume import VolumeConfig

Network = TypeVar("Network", GaussianGenerator, TriPlaneGenerator, Discriminator)


class ImageDiscriminator(nn.Module):
    """A discriminator that takes images as the rest of this project has them.

    Attributes:
        network: the discriminator itself; it takes images in [-1, 1].
    """

    def __init__(self, network: Discriminator) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], camera_labels: Float[Tensor, "batch label"]
    ) -> Float[Tensor, "batch 1"]:
        """Logits of images in [0, 1] and the camera labels (25 numbers) that they claim to be seen from."""
        return self.network(images * 2 - 1, camera_labels)


class DualDiscriminator(nn.Module):
    """A dual discriminator that takes images as the rest of this project has them.

    Attributes:
        network: the discriminator itself; it takes images in [-1, 1].
    """

    def __init__(self, network: Discriminator) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        raw_images: Float[Tensor, "batch 3 raw_height raw_width"],
        camera_labels: Float[Tensor, "batch label"],
    ) -> Float[Tensor, "batch 1"]:
        """Logits of images in [0, 1], before and after super-resolution, and the camera labels they claim."""
        return self.network(images * 2 - 1, camera_labels, raw_images * 2 - 1)


def load_cgsgan_generator(state_dict: Mapping[str, Tensor]) -> GaussianGenerator:
    """The published CGS-GAN generator: ``z`` [B, 512] or ``ws`` to a ``GeneratorOutput``.

    Networks for 256, 512, 1024 and 2048 px, both widths of the last level at 2048 px, with or without the label
    statistics that training snapshots carry.

    Args:
        state_dict: published key to tensor, as ``G_ema.state_dict()`` gives it.

    Returns:
        The network in evaluation mode, float32, without gradients of its parameters.

    Raises:
        WeightsError: names what is missing, unknown or of another shape.
    """
    network = _build(
        state_dict,
        lambda: GaussianGenerator(cgsgan_keys.infer_config(state_dict)),
        cgsgan_keys.official_form,
        cgsgan_keys.NETWORK,
    )
    cgsgan_keys.take_starts(network, state_dict)
    return network


def load_cgsgan_discriminator(state_dict: Mapping[str, Tensor]) -> ImageDiscriminator:
    """The published CGS-GAN discriminator: images in [0, 1] and camera labels to logits [B, 1].

    Args:
        state_dict: published key to tensor, as ``D.state_dict()`` gives it.

    Raises:
        WeightsError: names what is missing, unknown or of another shape.
    """
    return ImageDiscriminator(_load_discriminator(state_dict, dual=False))


def load_eg3d_generator(
    state_dict: Mapping[str, Tensor],
    *,
    plane_axes: PlaneAxes = "official",
    rendering: VolumeConfig | None = None,
    camera_conditioning: bool = True,
) -> PictureGenerator:
    """The published EG3D generator: ``(z, camera_labels, neural_resolution=64, deterministic=True)`` to pictures.

    Networks for 512, 256 and 128 px. What the tensors do not tell is for the caller to know: the defaults are those
    of faces; for cars, near 0.1, far 2.6, box_warp 1.6, white_back.

    Args:
        state_dict: published key to tensor, as ``G_ema.state_dict()`` gives it.
        plane_axes: published weights need ``official``; ``corrected`` is for those trained with the corrected ones.
        rendering: ranges and sample counts; None: those of faces. Its ``plane_axes`` are the argument's.
        camera_conditioning: whether the mapping sees the camera.

    Raises:
        WeightsError: names what is missing, unknown or of another shape.
    """
    network = _build(
        state_dict,
        lambda: TriPlaneGenerator(eg3d_keys.infer_config(state_dict, camera_conditioning=camera_conditioning)),
        eg3d_keys.official_form,
        eg3d_keys.NETWORK,
    )
    return PictureGenerator(network, replace(rendering or VolumeConfig(), plane_axes=plane_axes)).eval()


def load_eg3d_discriminator(state_dict: Mapping[str, Tensor]) -> DualDiscriminator:
    """The published EG3D dual discriminator: images and raw images in [0, 1] and camera labels to logits [B, 1].

    Args:
        state_dict: published key to tensor, as ``D.state_dict()`` gives it.

    Raises:
        WeightsError: names what is missing, unknown or of another shape.
    """
    return DualDiscriminator(_load_discriminator(state_dict, dual=True))


def _load_discriminator(state_dict: Mapping[str, Tensor], *, dual: bool) -> Discriminator:
    return _build(
        state_dict,
        lambda: Discriminator(discriminator_keys.infer_config(state_dict, dual=dual)),
        discriminator_keys.official_form,
        discriminator_keys.name_network(dual),
    )


def _build(
    state_dict: Mapping[str, Tensor], make: Callable[[], Network], form_of: Callable[[Any], OfficialForm], name: str
) -> Network:
    """The network that ``make`` makes, with the weights; no memory is taken for it before they are known to fit."""
    try:
        with torch.device("meta"):
            draft = make()
            form_of(draft).check_keys(state_dict, f"{name} of {draft.config.resolution} px")
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"not the weights of {name}: {error}") from None
    network = make()
    form_of(network).load(state_dict, f"{name} of {network.config.resolution} px")
    return network.eval().requires_grad_(False)
