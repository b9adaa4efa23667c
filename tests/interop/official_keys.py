"""Keys and shapes of the published networks, written out from their description; and weights by a fixed rule."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32, 2048: 16}


def with_bias(shapes: Shapes, key: str, *weight: int) -> None:
    shapes[f"{key}.weight"] = weight
    shapes[f"{key}.bias"] = weight[:1]


def cgsgan_generator(
    levels: int, widths: tuple[int, ...], width: int = 512, points: int = 512, cells: int = 512
) -> Shapes:
    shapes: Shapes = {"_xyz": (points, 3), "point_gen.rotation_init": (4,), "point_gen.opacity_init": (1,)}
    for name in ("scale_init", "scale_threshold", "color_init"):
        shapes[f"point_gen.{name}"] = (3,)
    with_bias(shapes, "point_gen.conv_in.learnable_pe.ffm.linear", width // 2, 3)
    shapes["point_gen.conv_in.const_pe.const_pe"] = (3, width // 2, 1, cells)
    blocks = [f"first_layers.{i}" for i in range(6)] + [f"resblocks.{i}" for i in range(levels - 1)]
    for block in blocks:
        key = f"point_gen.transformer.{block}."
        with_bias(shapes, key + "attn.c_qkv", 3 * width, width)
        with_bias(shapes, key + "attn.c_proj", width, width)
        with_bias(shapes, key + "mlp.c_fc", 4 * width, width)
        with_bias(shapes, key + "mlp.c_proj", width, 4 * width)
        for style in ("ln_1.gamma", "ln_1.beta", "ln_2.gamma", "ln_2.beta", "ls_1", "ls_2"):
            with_bias(shapes, key + style, width, width)
    ratios = (1, 4, 16, 64, 128, 256, 512, 1024)
    for i in range(levels):
        with_bias(shapes, f"point_gen.upsample_layers.{i}.subpixel", widths[i] * ratios[i], width)
        if i > 0:
            with_bias(shapes, f"point_gen.upsample_layers.{i}.res_fc", widths[i], width)
        for kind in ("anchors", "gaussians"):
            for name, size in (("xyz", 3), ("scale", 3), ("rotation", 4), ("color", 3), ("opacity", 1)):
                with_bias(shapes, f"point_gen.{kind}.{name}.{i}", size, widths[i])
    shapes["mapping_network.w_avg"] = (width,)
    with_bias(shapes, "mapping_network.embed", width, 25)
    with_bias(shapes, "mapping_network.fc0", width, 2 * width)
    with_bias(shapes, "mapping_network.fc1", width, width)
    return shapes


def discriminator(resolution: int, *, dual: bool, divide: int = 1) -> Shapes:
    def channels(size: int) -> int:
        return CHANNELS[size] // divide

    shapes: Shapes = {"resample_filter": (4, 4)} if dual else {}
    with_bias(shapes, f"b{resolution}.fromrgb", channels(resolution), 6 if dual else 3, 1, 1)
    shapes[f"b{resolution}.fromrgb.resample_filter"] = (4, 4)
    sizes = [2**p for p in range(int(math.log2(resolution)), 2, -1)]
    for key, c, d in [(f"b{s}", channels(s), channels(s // 2)) for s in sizes] + [
        ("b8_pose", channels(8), channels(4))
    ]:
        if dual and key == "b8_pose":
            continue
        for part in ("", ".conv0", ".conv1", ".skip"):
            shapes[f"{key}{part}.resample_filter"] = (4, 4)
        with_bias(shapes, f"{key}.conv0", c, c, 3, 3)
        with_bias(shapes, f"{key}.conv1", d, c, 3, 3)
        shapes[f"{key}.skip.weight"] = (d, c, 1, 1)
    width = channels(4)
    with_bias(shapes, "mapping.embed", width, 25)
    for i in range(8):
        with_bias(shapes, f"mapping.fc{i}", width, width)
    with_bias(shapes, "b4.conv", width, width + 1, 3, 3)
    shapes["b4.conv.resample_filter"] = (4, 4)
    with_bias(shapes, "b4.fc", width, 16 * width)
    with_bias(shapes, "b4.out", width, width)
    return shapes


def fill(shapes: Shapes) -> dict[str, Tensor]:
    """Weights of the size that trained networks have, a fixed function of key and shape."""
    taps = torch.tensor([1.0, 3, 3, 1])
    points = shapes.get("_xyz", (512, 3))[0]
    fixed = {
        "resample_filter": torch.outer(taps, taps) / 64,
        "scale_init": torch.full((3,), -5.0),
        "rotation_init": torch.tensor([1, 0, 0, 0]),
        "color_init": torch.zeros(3),
        "opacity_init": torch.tensor([math.log(0.1 / 0.9)]),
        "scale_threshold": torch.full((3,), math.log(0.5 / math.sqrt(points))),
    }
    state = {}
    for key, shape in shapes.items():
        last = key.rsplit(".", 1)[-1]
        if last in fixed:
            state[key] = fixed[last].clone()
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        value = torch.randn(shape, generator=generator)
        state[key] = value * _deviation(key) + _mean(key)
    return state


def _deviation(key: str) -> float:
    bias = key.endswith("bias")
    if ".fc" in key and "mapping" in key:
        return 10.0 if bias else 100.0
    if ".ls_" in key:
        return 0.1
    if bias or key.endswith(("noise_strength", "w_avg")):
        return 0.1
    if ".scale." in key or ".rotation." in key:
        return 0.3
    return 0.3 if key == "_xyz" else 1.0


def _mean(key: str) -> float:
    if key.endswith((".gamma.bias", "affine.bias")):
        return 1.0
    if key.endswith(".bias") and ".scale." in key:
        return -1.0
    return 0.3 if key.endswith(("ls_1.bias", "ls_2.bias")) else 0.0


def eg3d_generator(
    resolution: int = 512,
    *,
    planes: int = 256,
    width: int = 512,
    divide: int = 1,
    refiner: tuple[int, int] = (256, 128),
) -> Shapes:
    shapes: Shapes = {"backbone.synthesis.b4.const": (CHANNELS[4] // divide, 4, 4)}

    def conv(key: str, c: int, d: int, size: int) -> None:
        with_bias(shapes, key, d, c, 3, 3)
        with_bias(shapes, f"{key}.affine", c, width)
        shapes[f"{key}.noise_strength"] = ()
        shapes[f"{key}.noise_const"] = (size, size)
        shapes[f"{key}.resample_filter"] = (4, 4)

    def block(key: str, c: int, d: int, size: int, image: int) -> None:
        shapes[f"{key}.resample_filter"] = (4, 4)
        if c:
            conv(f"{key}.conv0", c, d, size)
        conv(f"{key}.conv1", d, d, size)
        with_bias(shapes, f"{key}.torgb", image, d, 1, 1)
        with_bias(shapes, f"{key}.torgb.affine", d, width)

    size, before = 4, 0
    while size <= planes:
        channels = CHANNELS[size] // divide
        block(f"backbone.synthesis.b{size}", before, channels, size, 96)
        size, before = 2 * size, channels
    with_bias(shapes, "backbone.mapping.embed", width, 25)
    with_bias(shapes, "backbone.mapping.fc0", width, 2 * width)
    with_bias(shapes, "backbone.mapping.fc1", width, width)
    shapes["backbone.mapping.w_avg"] = (width,)
    block("superresolution.block0", 32, refiner[0], resolution // 2, 3)
    block("superresolution.block1", refiner[0], refiner[1], resolution, 3)
    with_bias(shapes, "decoder.net.0", 64, 32)
    with_bias(shapes, "decoder.net.2", 33, 64)
    return shapes
