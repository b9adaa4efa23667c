"""The published CGS-GAN generator: its sizes from its tensors, and its tensors as parts of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official_form import OfficialForm, count_layers, shape_of
from cgsgan.models.anchors import AnchorConfig
from cgsgan.models.gaussian_generator import GaussianGenerator, GaussianGeneratorConfig
from cgsgan.models.mapping import MappingConfig
from cgsgan.models.points import PointsConfig
from cgsgan.models.presets import PUBLISHED_RESOLUTIONS
from cgsgan.models.transformer import TransformerConfig

NETWORK = "a CGS-GAN generator"
BLOCK_LAYERS = {
    "attn.c_qkv": "qkv",
    "attn.c_proj": "attention_out",
    "mlp.c_fc": "expand",
    "mlp.c_proj": "contract",
}
STYLES = ("ln_1.gamma", "ln_1.beta", "ln_2.gamma", "ln_2.beta", "ls_1", "ls_2")
"""In the order in which our one tensor of all styles holds them."""
ATTRIBUTES = {"scale": (0, 3), "rotation": (3, 7), "color": (7, 10), "opacity": (10, 11)}
"""Rows of our one tensor of all attributes."""
THRESHOLD = "point_gen.scale_threshold"
STARTS = {name: f"point_gen.{name}_init" for name in ATTRIBUTES}
"""What attributes start from before the first level; buffers of the published network."""


def infer_config(state: Mapping[str, Tensor]) -> GaussianGeneratorConfig:
    """The config, in official form, of the network that a published state dict belongs to.

    Raises:
        WeightsError: when it belongs to no CGS-GAN generator.
    """

    def shape(key: str, dimensions: int = 2) -> tuple[int, ...]:
        return shape_of(state, key, dimensions, NETWORK)

    levels = count_layers(state, "point_gen.upsample_layers.{}.subpixel.weight".format)
    resolution = 2 ** (levels + 3)
    if resolution not in PUBLISHED_RESOLUTIONS:
        raise WeightsError(
            f"not the weights of {NETWORK}: expected 5 to 8 levels (point_gen.upsample_layers.*), found {levels}"
        )
    width = max(shape("point_gen.upsample_layers.0.subpixel.weight")[1], 1)
    w_dim, label_dim = shape("mapping_network.embed.weight")
    widths = tuple(shape(f"point_gen.gaussians.xyz.{level}.weight")[1] for level in range(levels))
    usual = AnchorConfig().resolve_feature_widths(resolution, width)
    points = shape("_xyz")[0]
    first = count_layers(state, "point_gen.transformer.first_layers.{}.attn.c_qkv.weight".format)
    return GaussianGeneratorConfig(
        resolution=resolution,
        mapping=MappingConfig(
            z_dim=max(shape("mapping_network.fc0.weight")[1] - w_dim, 1),
            w_dim=w_dim,
            layers=count_layers(state, "mapping_network.fc{}.weight".format),
            label_dim=label_dim,
        ),
        points=PointsConfig(
            count=points, line_axis="official", line_cells=shape("point_gen.conv_in.const_pe.const_pe", 4)[3]
        ),
        transformer=TransformerConfig(
            width=width,
            mlp_ratio=shape("point_gen.transformer.first_layers.0.mlp.c_fc.weight")[0] // width,
            first_blocks=max(first, 1),
        ),
        anchors=AnchorConfig(
            feature_widths=None if widths == usual else widths,
            max_log_scale=_infer_threshold(state, points),
            dead_heads=True,
        ),
        xyz_group="points_and_heads",
    )


def _infer_threshold(state: Mapping[str, Tensor], points: int) -> float | None:
    shape_of(state, THRESHOLD, 1, NETWORK)
    values = state[THRESHOLD].tolist()
    usual = math.log(0.5 / math.sqrt(points))
    if not values or any(value != values[0] for value in values) or not math.isfinite(values[0]):
        raise WeightsError(f"not the weights of {NETWORK}: {THRESHOLD} must be one number three times, got {values}")
    return None if math.isclose(values[0], usual, rel_tol=1e-6) else values[0]


def official_form(network: GaussianGenerator) -> OfficialForm:
    """The published keys of a generator in official form, as views into it."""
    form = OfficialForm(optional={"dataset_label_std": (network.config.mapping.label_dim,)})
    slots, points = form.slots, network.points
    slots["_xyz"] = points.xyz.data
    form.settings.update(_starts(network))
    form.constants[THRESHOLD] = torch.full((3,), network.decoder.max_log_scale)
    form.add("point_gen.conv_in.learnable_pe.ffm.linear", points.frequencies)
    slots["point_gen.conv_in.const_pe.const_pe"] = points.table.data[:, :, None]
    _add_blocks(form, network)
    _add_levels(form, network)
    slots["mapping_network.w_avg"] = network.mapping.w_average
    form.add("mapping_network.embed", network.mapping.embed)
    for index, layer in enumerate(network.mapping.body.layers):
        form.add(f"mapping_network.fc{index}", layer)
    return form


def _starts(network: GaussianGenerator) -> dict[str, Tensor]:
    anchors = network.config.anchors
    return {
        STARTS["scale"]: torch.full((3,), anchors.start_log_scale),
        STARTS["rotation"]: torch.tensor([1, 0, 0, 0]),
        STARTS["color"]: torch.zeros(3),
        STARTS["opacity"]: torch.full((1,), math.log(anchors.start_opacity / (1 - anchors.start_opacity))),
    }


def take_starts(network: GaussianGenerator, state: Mapping[str, Tensor]) -> None:
    """Take over start values other than the usual ones: they are added to the heads that alone see them."""
    first: Any = network.decoder.levels[0]
    bias = first.heads.attribute_bias.data[0]
    for (name, key), usual in zip(STARTS.items(), _starts(network).values()):
        change = state[key].double() - usual.double()
        if not torch.allclose(change, torch.zeros_like(change), atol=1e-6):
            bias[slice(*ATTRIBUTES[name])] += change.to(bias)


def _add_blocks(form: OfficialForm, network: GaussianGenerator) -> None:
    transformer: Any = network.transformer
    width, first = transformer.config.width, transformer.config.first_blocks
    for index, block in enumerate(transformer.blocks):
        place = f"first_layers.{index}" if index < first else f"resblocks.{index - first}"
        key = f"point_gen.transformer.{place}"
        for theirs, ours in BLOCK_LAYERS.items():
            form.add(f"{key}.{theirs}", getattr(block, ours))
        for row, style in enumerate(STYLES):
            rows = slice(row * width, (row + 1) * width)
            form.slots[f"{key}.{style}.weight"] = transformer.styles.weight.data[index, rows]
            form.slots[f"{key}.{style}.bias"] = transformer.styles.bias.data[index, rows]


def _add_levels(form: OfficialForm, network: GaussianGenerator) -> None:
    levels: Any = network.decoder.levels
    for index, level in enumerate(levels):
        form.add(f"point_gen.upsample_layers.{index}.subpixel", level.split)
        if level.carry is not None:
            form.add(f"point_gen.upsample_layers.{index}.res_fc", level.carry)
        if level.dead_heads is None:
            sets = {"anchors": (level.heads, 0), "gaussians": (level.heads, 1)}
        else:
            sets = {"anchors": (level.dead_heads, 0), "gaussians": (level.heads, 0)}
        for name, (heads, position) in sets.items():
            key = f"point_gen.{name}.{{}}.{index}.{{}}"
            form.slots[key.format("xyz", "weight")] = heads.xyz_weight.data[position]
            form.slots[key.format("xyz", "bias")] = heads.xyz_bias.data[position]
            for attribute, (start, stop) in ATTRIBUTES.items():
                form.slots[key.format(attribute, "weight")] = heads.attribute_weight.data[position, start:stop]
                form.slots[key.format(attribute, "bias")] = heads.attribute_bias.data[position, start:stop]
