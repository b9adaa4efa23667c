"""The published discriminators of CGS-GAN and EG3D: sizes from their tensors, and their tensors as parts of ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official_form import OfficialForm, count_layers, make_low_pass, shape_of
from cgsgan.models.discriminator import Discriminator, DiscriminatorConfig
from cgsgan.models.discriminator_config import DEAD_BLOCK_SIZE, EPILOGUE_SIZE

LARGEST_POWER = 12
"""Resolutions up to 4096 px are looked for."""


def infer_config(state: Mapping[str, Tensor], *, dual: bool) -> DiscriminatorConfig:
    """The config, in official form, of the network that a published state dict belongs to.

    Args:
        state: published key to tensor.
        dual: EG3D's, which sees the raw image too; otherwise CGS-GAN's with its dead block.

    Raises:
        WeightsError: when it belongs to no such discriminator.
    """
    network = name_network(dual)
    sizes = [2**power for power in range(3, LARGEST_POWER + 1) if f"b{2**power}.fromrgb.weight" in state]
    if len(sizes) != 1:
        raise WeightsError(f"not the weights of {network}: expected b512.fromrgb.weight, or that of another size")
    (resolution,) = sizes
    blocks = [resolution >> step for step in range(resolution.bit_length() - 3)]
    channels = [shape_of(state, f"b{size}.conv0.weight", 4, network)[0] for size in blocks]
    channels.append(shape_of(state, f"b{EPILOGUE_SIZE}.conv.weight", 4, network)[0])
    usual = DiscriminatorConfig(resolution=resolution).resolve_channels()
    width, label_dim = shape_of(state, "mapping.embed.weight", 2, network)
    return DiscriminatorConfig(
        resolution=resolution,
        channels=None if tuple(channels) == usual else tuple(channels),
        label_dim=label_dim,
        camera_width=width,
        camera_layers=count_layers(state, "mapping.fc{}.weight".format),
        dual=dual,
        dead_block=not dual,
    )


def name_network(dual: bool) -> str:
    """What is expected, for errors."""
    return "an EG3D dual discriminator" if dual else "a CGS-GAN discriminator"


def official_form(network: Discriminator) -> OfficialForm:
    """The published keys of a discriminator in official form, as views into it."""
    form, sizes = OfficialForm(), network.config.block_sizes
    if network.config.dual:
        form.constants["resample_filter"] = make_low_pass()
    form.add(f"b{sizes[0]}.fromrgb", network.from_rgb)
    form.constants[f"b{sizes[0]}.fromrgb.resample_filter"] = make_low_pass()
    blocks = {f"b{size}": block for size, block in zip(sizes, network.blocks)}
    if network.dead_block is not None:
        blocks[f"b{DEAD_BLOCK_SIZE}_pose"] = network.dead_block
    for key, block in blocks.items():
        form.constants[f"{key}.resample_filter"] = make_low_pass()
        for name in ("conv0", "conv1", "skip"):
            form.add(f"{key}.{name}", getattr(block, name))
            form.constants[f"{key}.{name}.resample_filter"] = make_low_pass()
    assert network.camera is not None
    form.add("mapping.embed", network.camera.embed)
    for index, layer in enumerate(network.camera.body.layers):
        form.add(f"mapping.fc{index}", layer)
    for name in ("conv", "fc", "out"):
        form.add(f"b{EPILOGUE_SIZE}.{name}", getattr(network.epilogue, name))
    form.constants[f"b{EPILOGUE_SIZE}.conv.resample_filter"] = make_low_pass()
    return form
