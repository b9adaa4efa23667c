"""EG3D's networks written down once more, plainly, from the published description: zeros are inserted, the filter is an
explicit sum of shifted pictures, every sample has its own modulated weight and is convolved tap by tap.

It reads the parameters of our modules and shares no code with them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

TAPS = (1, 3, 3, 1)


def fill(module: nn.Module, phase: float = 0.0) -> Any:
    """Every parameter and buffer by a fixed rule, in float64, whatever the random numbers: waves of variance 1/2."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    with torch.no_grad():
        for k, (name, tensor) in enumerate(sorted(tensors, key=lambda item: item[0])):
            wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * (1.7 + 0.01 * k) + 0.9 * k + phase)
            scale = {"bias": 0.4, "noise_strength": 0.7, "w_average": 0.2}.get(name.rsplit(".", 1)[-1], 1.0)
            offset = 1.0 if name.endswith("affine.bias") else 0.0
            multiplier = 100 if "mapping.body" in name or name.startswith("body") else 1  # stored values / 0.01
            tensor.data = (wave * scale * multiplier + offset).reshape(tensor.shape)
    return module


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def linear(layer: Any, x: Tensor, multiplier: float = 1.0) -> Tensor:
    return x @ (layer.weight * multiplier / math.sqrt(layer.weight.shape[1])).T + layer.bias * multiplier


def pad(x: Tensor, before: int, after: int) -> Tensor:
    channels, height, width = x.shape
    result = x.new_zeros(channels, height + before + after, width + before + after)
    result[:, before : before + height, before : before + width] = x
    return result


def correlate(x: Tensor, weight: Tensor) -> Tensor:
    """Valid correlation of one sample, a product per tap."""
    k = weight.shape[2]
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    return sum(
        torch.einsum("chw,oc->ohw", x[:, i : i + height, j : j + width], weight[:, :, i, j])
        for i in range(k)
        for j in range(k)
    )  # type: ignore[return-value]


def insert_zeros(x: Tensor) -> Tensor:
    """A zero after every pixel, in both directions."""
    channels, height, width = x.shape
    result = x.new_zeros(channels, 2 * height, 2 * width)
    result[:, ::2, ::2] = x
    return result


def low_pass(x: Tensor, gain: float) -> Tensor:
    height, width = x.shape[1] - 3, x.shape[2] - 3
    return sum(
        x[:, i : i + height, j : j + width] * (a * b / 64 * gain)
        for i, a in enumerate(TAPS)
        for j, b in enumerate(TAPS)
    )  # type: ignore[return-value]


def double_image(image: Tensor) -> Tensor:
    return low_pass(pad(insert_zeros(image), 2, 1), 4)


def convolve_double(x: Tensor, weight: Tensor) -> Tensor:
    """Insert zeros, correlate with the flipped kernel (2 H + 1 pixels), filter with a border of one."""
    zeros = insert_zeros(x)[:, :-1, :-1]
    return low_pass(pad(correlate(pad(zeros, 2, 2), weight.flip(2, 3)), 1, 1), 4)


def styled_conv(layer: Any, x: Tensor, w: Tensor, *, up: bool, noise: bool, clamp: float | None) -> Tensor:
    outputs = []
    for sample, style in zip(x, linear(layer.affine, w)):
        weight = layer.weight * style[None, :, None, None]
        weight = weight / (weight.pow(2).sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        y = convolve_double(sample, weight) if up else correlate(pad(sample, 1, 1), weight)
        if noise:
            y = y + layer.noise_const * layer.noise_strength
        outputs.append(leaky(y + layer.bias[:, None, None]))
    y = torch.stack(outputs)
    return y if clamp is None else y.clamp(-clamp, clamp)


def to_image(layer: Any, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    styles = linear(layer.affine, w) / math.sqrt(x.shape[1])
    outputs = [
        correlate(sample, layer.weight * style[None, :, None, None]) + layer.bias[:, None, None]
        for sample, style in zip(x, styles)
    ]
    y = torch.stack(outputs)
    return y if clamp is None else y.clamp(-clamp, clamp)


def backbone(network: Any, ws: Tensor) -> Tensor:
    config = network.config
    noise, clamp = config.noise == "constant", config.clamp
    x, image, row = network.const[None].repeat(len(ws), 1, 1, 1), None, 0
    for block in network.blocks:
        if block.conv0 is not None:
            x = styled_conv(block.conv0, x, ws[:, row], up=True, noise=noise, clamp=clamp)
            row += 1
        x = styled_conv(block.conv1, x, ws[:, row], up=False, noise=noise, clamp=clamp)
        row += 1
        drawn = to_image(block.to_image, x, ws[:, row], clamp)
        image = drawn if image is None else torch.stack([double_image(i) for i in image]) + drawn
    assert image is not None
    assert row == ws.shape[1] - 1
    channels = config.plane_channels
    return torch.stack([image[:, p * channels : (p + 1) * channels] for p in range(3)], dim=1)


def resize_matrix(size: int, target: int) -> Tensor:
    """Bilinear with antialiasing: triangles as wide as the larger of the two pixels, normalised inside."""
    scale = size / target
    support = max(scale, 1.0)
    rows = []
    for i in range(target):
        center = (i + 0.5) * scale
        weights = [max(0.0, 1 - abs((j + 0.5 - center) / support)) for j in range(size)]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=torch.float64)


def resize(x: Tensor, target: int) -> Tensor:
    vertical, horizontal = resize_matrix(x.shape[2], target), resize_matrix(x.shape[3], target)
    return torch.einsum("ih,bchw,jw->bcij", vertical, x, horizontal)


def super_resolution(network: Any, raw_images: Tensor, features: Tensor, ws: Tensor) -> Tensor:
    config, w = network.config, ws[:, -1]
    noise, clamp = config.noise == "constant", config.clamp
    x, image = resize(features, config.input_resolution), resize(raw_images, config.input_resolution)
    for block in (network.block0, network.block1):
        up = block is network.block1 or network.resolution == 4 * config.input_resolution
        x = styled_conv(block.conv0, x, w, up=up, noise=noise, clamp=clamp)
        x = styled_conv(block.conv1, x, w, up=False, noise=noise, clamp=clamp)
        base = torch.stack([double_image(i) for i in image]) if up else image
        image = base + to_image(block.to_image, x, w, clamp)
    return image


def decode(network: Any, features: Tensor) -> tuple[Tensor, Tensor]:
    hidden = linear(network.hidden, features)
    hidden = torch.log1p(torch.exp(-hidden.abs())) + hidden.clamp_min(0)
    out = linear(network.out, hidden)
    return out[..., :1], 1 / (1 + torch.exp(-out[..., 1:])) * 1.002 - 0.001


def rms_normalize(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(dim=1, keepdim=True) + 1e-8).sqrt()


def mapping(network: Any, z: Tensor, labels: Tensor) -> Tensor:
    """One w per latent; labels are zeros where it is not conditioned."""
    x = torch.cat([rms_normalize(z), rms_normalize(linear(network.embed, labels * network.config.label_scale))], dim=1)
    for layer in network.body.layers:
        x = leaky(linear(layer, x, 0.01))
    return x
