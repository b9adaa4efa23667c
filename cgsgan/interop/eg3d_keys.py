"""The published EG3D generators: their sizes from their tensors, and their tensors as parts of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official_form import OfficialForm, count_layers, make_low_pass, shape_of
from cgsgan.models.mapping import MappingConfig
from cgsgan.models.triplane.decoder import DecoderConfig
from cgsgan.models.triplane.generator import TriPlaneGenerator, TriPlaneGeneratorConfig
from cgsgan.models.triplane.modulation import StyledConv, ToImage
from cgsgan.models.triplane.superresolution import SuperResolutionConfig
from cgsgan.models.triplane.synthesis import BackboneConfig, SynthesisBlock

NETWORK = "an EG3D generator"
LARGEST_POWER = 12
INPUT_SIZES = {512: 128, 256: 128, 128: 64}
"""Final picture to what the super-resolution resizes its input to, pixels."""
FILTER = "resample_filter"


def infer_config(state: Mapping[str, Tensor], *, camera_conditioning: bool = True) -> TriPlaneGeneratorConfig:
    """The config, in official form, of the network that a published state dict belongs to.

    Args:
        state: published key to tensor.
        camera_conditioning: whether the mapping sees the camera; the tensors are the same without.

    Raises:
        WeightsError: when it belongs to no EG3D generator.
    """

    def shape(key: str, dimensions: int = 2) -> tuple[int, ...]:
        return shape_of(state, key, dimensions, NETWORK)

    powers = range(2, LARGEST_POWER + 1)
    sizes = [2**power for power in powers if f"backbone.synthesis.b{2**power}.conv1.weight" in state]
    if len(sizes) < 2 or sizes != [4 << step for step in range(len(sizes))]:
        raise WeightsError(f"not the weights of {NETWORK}: expected backbone.synthesis.b4, .b8 ..., found {sizes} px")
    w_dim, label_dim = shape("backbone.mapping.embed.weight")
    channels = tuple(shape(f"backbone.synthesis.b{size}.conv1.weight", 4)[0] for size in sizes)
    usual = BackboneConfig(resolution=sizes[-1]).resolve_channels()
    resolution = shape("superresolution.block1.conv1.noise_const")[0]
    if resolution not in INPUT_SIZES:
        raise WeightsError(
            f"not the weights of {NETWORK}: super-resolutions are known for {[*INPUT_SIZES]} px, found {resolution}"
        )
    return TriPlaneGeneratorConfig(
        resolution=resolution,
        camera_conditioning=camera_conditioning,
        mapping=MappingConfig(
            z_dim=max(shape("backbone.mapping.fc0.weight")[1] - w_dim, 1),
            w_dim=w_dim,
            layers=count_layers(state, "backbone.mapping.fc{}.weight".format),
            label_dim=label_dim,
        ),
        backbone=BackboneConfig(
            resolution=sizes[-1],
            plane_channels=max(shape("backbone.synthesis.b4.torgb.weight", 4)[0] // 3, 1),
            channels=None if channels == usual else channels,
        ),
        decoder=DecoderConfig(
            width=shape("decoder.net.0.weight")[0], features=max(shape("decoder.net.2.weight")[0] - 1, 3)
        ),
        superresolution=SuperResolutionConfig(
            input_resolution=INPUT_SIZES[resolution],
            channels=(
                shape("superresolution.block0.conv1.weight", 4)[0],
                shape("superresolution.block1.conv1.weight", 4)[0],
            ),
        ),
    )


def official_form(network: TriPlaneGenerator) -> OfficialForm:
    """The published keys of a generator, as views into it."""
    form = OfficialForm(
        # Only the module of the released 512 px networks does without the second one, and nothing depends on it.
        optional={"dataset_label_std": (network.config.mapping.label_dim,), f"superresolution.{FILTER}": (4, 4)}
    )
    form.slots["backbone.synthesis.b4.const"] = network.backbone.const.data
    blocks: Any = network.backbone.blocks
    for size, block in zip(network.backbone.config.sizes, blocks):
        _add_block(form, f"backbone.synthesis.b{size}", block)
    form.slots["backbone.mapping.w_avg"] = network.mapping.w_average
    form.add("backbone.mapping.embed", network.mapping.embed)
    for index, layer in enumerate(network.mapping.body.layers):
        form.add(f"backbone.mapping.fc{index}", layer)
    assert network.superresolution is not None
    for name in ("block0", "block1"):
        _add_block(form, f"superresolution.{name}", getattr(network.superresolution, name))
    form.add("decoder.net.0", network.decoder.hidden)
    form.add("decoder.net.2", network.decoder.out)
    return form


def _add_block(form: OfficialForm, key: str, block: SynthesisBlock) -> None:
    form.constants[f"{key}.{FILTER}"] = make_low_pass()
    for name, conv in (("conv0", block.conv0), ("conv1", block.conv1)):
        if conv is not None:
            _add_styled(form, f"{key}.{name}", conv)
            form.slots[f"{key}.{name}.noise_strength"] = conv.noise_strength.data
            form.slots[f"{key}.{name}.noise_const"] = conv.noise_const
            form.constants[f"{key}.{name}.{FILTER}"] = make_low_pass()
    _add_styled(form, f"{key}.torgb", block.to_image)


def _add_styled(form: OfficialForm, key: str, layer: StyledConv | ToImage) -> None:
    form.add(key, layer)
    form.add(f"{key}.affine", layer.affine)
