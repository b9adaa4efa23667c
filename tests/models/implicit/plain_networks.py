"""pi-GAN's networks as written on paper: one number after the other, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cgsgan.models.implicit.field import ImplicitField
from cgsgan.models.implicit.generator import ImplicitGenerator


def array(tensor: Any) -> np.ndarray:
    return tensor.detach().double().numpy()


def styles(generator: ImplicitGenerator, z: np.ndarray) -> np.ndarray:
    """The hidden layers of the mapping network for one latent, which is not normalised."""
    m = generator.config.mapping.lr_multiplier
    x = z
    for layer in generator.mapping.body.layers:
        weight, bias = array(layer.weight) * m / math.sqrt(len(x)), array(layer.bias) * m
        x = np.array([math.sqrt(2) * (y if y > 0 else 0.2 * y) for y in weight @ x + bias])
    return x


def modulation(generator: ImplicitGenerator, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and phases of every layer from one style."""
    config, frequencies, phases = generator.config, [], []
    gain = config.modulation_gain * math.sqrt(2 / 1.04 / len(w))
    for weight, bias in zip(array(generator.modulation.weight), array(generator.modulation.bias)):
        said = w @ weight * gain + bias[0]
        width = config.field.width
        frequencies.append(config.field.frequency_scale * said[:width] + config.field.frequency_mean)
        phases.append(said[width:])
    return np.array(frequencies), np.array(phases)


def field(
    network: ImplicitField, point: np.ndarray, direction: np.ndarray, frequencies: np.ndarray, phases: np.ndarray
) -> tuple[float, np.ndarray]:
    """Raw density and colour of one point."""
    config = network.config
    x = point * 2 / config.box_size
    for layer, frequency, phase in zip(network.layers, frequencies, phases):
        x = np.sin(frequency * (array(layer.weight) @ x + array(layer.bias)) + phase)
    density = array(network.density_head.weight)[0] @ x + array(network.density_head.bias)[0]
    joined = np.concatenate([direction, x])
    layer = network.color_layer
    x = np.sin(frequencies[-1] * (array(layer.weight) @ joined + array(layer.bias)) + phases[-1])
    color = array(network.color_head.weight) @ x + array(network.color_head.bias)
    return density * config.head_gain + config.density_bias, 1 / (1 + np.exp(-color * config.head_gain))
