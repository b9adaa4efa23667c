"""A new run that starts from another one's networks, at the same size or a larger one.

Gaussians have no resolution, so the generator goes on as it is; levels that only the new config has are added. The
discriminator sees the larger pictures through a coarser pixel-unshuffle, and its first convolution begins as the mean
of every square of pixels: at the moment of the switch it says exactly what it said of the smaller pictures.
Implicit fields have no resolution either. Tri-planes start from others of the same size; their neural resolution may
be another one (EG3D's second stage).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.config import ConfigError, ExperimentConfig, flat_config, parse_config
from cgsgan.models.discriminator import Discriminator, DiscriminatorConfig
from cgsgan.models.gaussian_generator import GaussianGenerator, GaussianGeneratorConfig
from cgsgan.training.checkpoint import STATE_FILE, find_generator, read_training_state
from cgsgan.training.generator_file import CheckpointError, read_generator
from cgsgan.training.state_tensors import unprefixed

FREE = {"generator": ("resolution", "xyz_group", "anchors.split_factors", "anchors.feature_widths",
                      "mapping.w_average_decay"),
        "discriminator": ("resolution", "unshuffle", "channels", "minibatch_std_group", "clamp",
                          "half_precision_blocks", "half_dtype", "half_on_cpu")}  # fmt: skip
"""What may differ: sizes, which are looked at one by one, and what changes no function of the weights."""
FIRST_OPACITY_LOGIT = -3.0
"""Gaussians of added levels start with their anchors' opacity logit plus this: hardly visible, nothing jumps."""
OPACITY = 10
"""Row of the opacity in a head's attributes."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a run starts from.

    Attributes:
        checkpoint: its folder.
        config: the experiment it comes from.
        images_seen: how long that was trained.
        generator: the averaged generator's state.
        discriminator: the discriminator's state.
    """

    checkpoint: Path
    config: ExperimentConfig
    images_seen: int
    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor]


def read_origin(path: str) -> Origin:
    """The newest checkpoint of a run folder, or a checkpoint folder.

    Raises:
        CheckpointError: when there is none, it is damaged, or it holds a generator without its discriminator.
        ConfigError: when its config cannot be read.
    """
    try:
        checkpoint = find_generator(path).parent
        if Path(path).is_file() or not (checkpoint / STATE_FILE).is_file():
            raise CheckpointError(f"{path}: holds a generator alone; expected a run folder or one of its checkpoints")
        stored, state = read_generator(checkpoint / "generator.safetensors"), read_training_state(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"training.start_from: {error}") from None
    config = parse_config(stored.config, source=f"training.start_from: {checkpoint}")
    return Origin(
        checkpoint=checkpoint,
        config=config,
        images_seen=stored.images_seen,
        generator=stored.weights,
        discriminator=unprefixed("discriminator", state.tensors),
    )


def start_from(
    origin: Origin,
    config: ExperimentConfig,
    generator: torch.nn.Module,
    discriminator: Discriminator,
) -> str:
    """Give both fresh networks the origin's weights, grown to their size.

    Args:
        origin: see :func:`read_origin`.
        config: the new experiment.
        generator: as ``config`` makes it; what the origin does not have stays as it is.
        discriminator: as ``config`` makes it.

    Returns:
        What was done, for people.

    Raises:
        ConfigError: names the field or the tensor that does not fit.
    """
    check_growable(origin, config)
    before, after = origin.config, config
    gaussian = isinstance(generator, GaussianGenerator)
    _load(generator, grow_generator(generator, origin) if gaussian else origin.generator, origin)
    grown = dict(origin.discriminator)
    grown["from_rgb.weight"] = grow_first_convolution(
        grown["from_rgb.weight"],
        before.discriminator.unshuffle,
        after.discriminator.unshuffle,
        coordinates=0 if after.discriminator.coordinates == "none" else 2,
    )
    _load(discriminator, grown, origin)
    size = f"{before.resolution} -> {after.resolution} px" if before.resolution != after.resolution else "same size"
    counts = [len(_levels(c, "resolve_split_factors")) for c in (before, after)]
    levels = f", {counts[1] - counts[0]} level(s) added" if counts[1] > counts[0] else ""
    return (
        f"starts from {origin.checkpoint} ({origin.images_seen / 1000:g} kimg): {size}; generator from its average"
        f"{levels}; discriminator unshuffle {before.discriminator.unshuffle} -> {after.discriminator.unshuffle}"
    )


def check_growable(origin: Origin, config: ExperimentConfig) -> None:
    """Refuse an origin that the new experiment cannot start from.

    Raises:
        ConfigError: names the sizes, or the differing fields with both values.
    """
    before, after = origin.config, config
    _check_kinds(origin, config)
    _check_sizes(origin, before.discriminator, after.discriminator)
    old, new = flat_config(before), flat_config(after)
    free = {f"{part}.{name}" for part, names in FREE.items() for name in names}
    kept = [key for key in old if key.startswith(tuple(f"{part}." for part in FREE)) and key not in free]
    different = [f"{key}: {old[key]!r} -> {new[key]!r}" for key in kept if old[key] != new[key]]
    for name in ("resolve_split_factors", "resolve_feature_widths"):
        was, now = (_levels(config, name) for config in (before, after))
        if now[: len(was)] != was:
            field = name.removeprefix("resolve_")
            different.append(f"generator.anchors.{field}: {list(was)} -> {list(now)} (levels can only be added)")
    channels = [config.discriminator.resolve_channels() for config in (before, after)]
    if channels[0] != channels[1]:
        different.append(f"discriminator.channels: {list(channels[0])} -> {list(channels[1])}")
    if different:
        raise _misfit(origin, f"differing: {'; '.join(different)}")


def _check_kinds(origin: Origin, config: ExperimentConfig) -> None:
    before, after = origin.config, config
    if before.generator.kind != after.generator.kind:
        raise _misfit(origin, f"its generator makes {before.generator.kind} and this one's {after.generator.kind}")
    if after.generator.kind != "gaussians" and before.resolution != after.resolution:
        raise _misfit(
            origin,
            f"its resolution is {before.resolution} and this one's {after.resolution}; only "
            "Gaussians grow, and the neural resolution of tri-planes (training.planes.final_neural_resolution)",
        )


def _check_sizes(origin: Origin, before: DiscriminatorConfig, after: DiscriminatorConfig) -> None:
    factor = after.resolution // before.resolution
    if factor < 1:
        raise _misfit(origin, f"its resolution is {before.resolution} and this one's {after.resolution}; it only grows")
    if after.unshuffle != before.unshuffle * factor:
        wanted = before.unshuffle * factor
        fix = f"set discriminator.unshuffle {wanted}" if wanted <= 4 else "grow by less"
        raise _misfit(
            origin,
            f"from {before.resolution} to {after.resolution} px unshuffle grows from {before.unshuffle} to {wanted}, "
            f"but this config has {after.unshuffle}; {fix}",
        )


def grow_generator(network: GaussianGenerator, origin: Origin) -> dict[str, Tensor]:
    """The state of ``network`` with everything that the origin's generator knows.

    Added levels hang on anchors that start as the Gaussians of the last level there was, and begin almost
    transparent; added transformer blocks begin as the identity, as they always do.
    """
    grown, before = dict(network.state_dict()), origin.generator
    for name, value in before.items():
        if name not in grown or grown[name].shape == value.shape:
            grown[name] = value
        elif name.startswith("transformer.styles."):  # one row per block
            grown[name] = torch.cat([value, grown[name][len(value) :]])
        elif ".heads." in name:  # what was the last level has Gaussians alone; now it needs anchors for the next
            grown[name] = value.repeat(2, *[1] * (value.ndim - 1))
        else:
            grown[name] = value
    for index in range(len(_levels(origin.config, "resolve_split_factors")), len(network.decoder.levels)):
        for name, value in (("attribute_weight", 0.0), ("attribute_bias", FIRST_OPACITY_LOGIT)):
            head = grown[f"decoder.levels.{index}.heads.{name}"] = grown[f"decoder.levels.{index}.heads.{name}"].clone()
            head[-1, OPACITY] = value
    return grown


def grow_first_convolution(
    weight: Float[Tensor, "out in kernel kernel"], before: int, after: int, *, coordinates: int = 0
) -> Float[Tensor, "out new_in new_kernel new_kernel"]:
    """The first convolution of a discriminator for pictures ``after / before`` times as large.

    It begins as the old one on the mean of every square of pixels. Weights are stored without their run-time factor
    1 / sqrt(in k^2) (equalised learning rate), which falls as the input grows; that is made up for.

    Args:
        weight: stored weight; 1 x 1 without unshuffling, else 3 x 3.
        before: the old unshuffle.
        after: the new one, a multiple.
        coordinates: channels at the end that are no colours; their maps stay as large as they were.
    """
    factor, kernel = after // before, weight.shape[-1]
    if factor == 1:
        return weight
    colors, places = weight.split([weight.shape[1] - coordinates, coordinates], dim=1)
    # Channels after unshuffling by u are (colour, row in the square, column in it).
    parts = colors.unflatten(1, (3, before, 1, before, 1)).expand(-1, -1, -1, factor, -1, factor, -1, -1)
    wide = torch.cat([parts.flatten(1, 5) / factor**2, places], dim=1)
    wide = torch.nn.functional.pad(wide, [(3 - kernel) // 2] * 4)
    fan_in = (weight[0].numel(), wide[0].numel())
    return (wide * (fan_in[1] / fan_in[0]) ** 0.5).contiguous()


def _levels(config: ExperimentConfig, name: str) -> tuple[int, ...]:
    if not isinstance(config.generator, GaussianGeneratorConfig):
        return ()
    anchors, resolution = config.generator.anchors, config.generator.resolution
    if name == "resolve_split_factors":
        return anchors.resolve_split_factors(resolution)
    return anchors.resolve_feature_widths(resolution, config.generator.transformer.width)


def _load(network: torch.nn.Module, state: Mapping[str, Any], origin: Origin) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _misfit(origin, f"its weights do not fit ({' '.join(str(error).split())})") from None


def _misfit(origin: Origin, reason: str) -> ConfigError:
    return ConfigError(f"training.start_from: {origin.checkpoint} cannot be grown into this experiment; {reason}")
