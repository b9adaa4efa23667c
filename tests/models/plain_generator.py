"""CGS-GAN's generator written down once more, plainly, in the layout and the order of the published description.

Rows are ``[batch, gaussian, channel]``, parents are repeated, rotations are 3 x 3 matrices, every layer is a separate
product, nothing is folded. It reads the parameters of a ``GaussianGenerator`` and shares no code with it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def linear(layer: Any, x: Tensor, *, lr_multiplier: float = 1.0) -> Tensor:
    fan_in = layer.weight.shape[1]
    return x @ (layer.weight * lr_multiplier / math.sqrt(fan_in)).T + layer.bias * lr_multiplier


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def line_features(table: Tensor, positions: Tensor, *, official: bool) -> Tensor:
    """Per-scalar loops: linear interpolation between cell centres, zeros outside the line."""
    cells, total = table.shape[2], 0
    for axis in range(3):
        rows = []
        for p in positions[:, axis]:
            if official:
                middle = (table[axis, :, cells // 2 - 1] + table[axis, :, cells // 2]) / 2
                rows.append(middle * (1 - p.abs() / 2))
                continue
            x = ((p + 1) * cells - 1) / 2
            left = math.floor(x.item())
            value = torch.zeros_like(table[axis, :, 0])
            for cell, weight in ((left, left + 1 - x), (left + 1, x - left)):
                if 0 <= cell < cells:
                    value = value + weight * table[axis, :, cell]
            rows.append(value)
        total = total + torch.stack(rows)
    assert isinstance(total, Tensor)
    return total / math.sqrt(3)


def style(transformer: Any, block: int, index: int, w: Tensor) -> Tensor:
    width = transformer.config.width
    rows = slice(index * width, (index + 1) * width)
    weight, bias = transformer.styles.weight[block, rows], transformer.styles.bias[block, rows]
    return (w @ (weight / math.sqrt(w.shape[1])).T + bias)[:, None]


def norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    mean, std = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True, unbiased=False)
    return (x - mean) / (std + 1e-8) * gamma + beta


def attention(block: Any, x: Tensor) -> Tensor:
    qkv, outputs = linear(block.qkv, x), []
    head = x.shape[2] // block.heads
    for h in range(block.heads):
        q, k, v = (qkv[..., (3 * h + i) * head : (3 * h + i + 1) * head] for i in range(3))
        scores = (q * head**-0.25) @ (k * head**-0.25).transpose(1, 2)
        outputs.append(scores.softmax(dim=-1) @ v)
    return linear(block.attention_out, torch.cat(outputs, dim=2))


def mlp(block: Any, x: Tensor) -> Tensor:
    hidden = linear(block.expand, x)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))) * math.sqrt(2)
    return linear(block.contract, hidden)


def run_transformer(transformer: Any, features: Tensor, ws: Tensor, outputs_after: list[int]) -> list[Tensor]:
    x, outputs = features.repeat(len(ws), 1, 1), []
    for i, block in enumerate(transformer.blocks):
        s = [style(transformer, i, k, ws[:, i]) for k in range(6)]
        x = x + attention(block, norm(x, s[0], s[1])) * s[4]
        x = x + mlp(block, norm(x, s[2], s[3])) * s[5]
        if i + 1 in outputs_after:
            outputs.append(x)
    return outputs


def row_features(level: Any, tokens: Tensor, rows: int) -> Tensor:
    batch, points, _ = tokens.shape
    features = level.split.weight.shape[0] // rows
    split = leaky(linear(level.split, tokens)).reshape(batch, points * rows, features)
    carry = tokens if level.carry is None else linear(level.carry, tokens)
    return (carry.repeat_interleave(rows, dim=1) + split) / math.sqrt(2)


def head(heads: Any, index: int, features: Tensor) -> dict[str, Tensor]:
    gain = 1 / math.sqrt(features.shape[2])
    attributes = features @ (heads.attribute_weight[index] * gain).T + heads.attribute_bias[index]
    scale, rotation, color, opacity = attributes.split([3, 4, 3, 1], dim=2)
    xyz = features @ (heads.xyz_weight[index] * gain).T + heads.xyz_bias[index]
    return {"xyz": xyz, "scale": scale, "rotation": rotation, "color": color, "opacity": opacity}


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-x.abs())) + x.clamp_min(0)


def rotation_matrices(quats: Tensor) -> Tensor:
    q = quats / (quats.norm(dim=-1, keepdim=True) + 0.001)
    w, x, y, z = q.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def post(out: dict[str, Tensor], previous: dict[str, Tensor], *, first: bool, settings: Any) -> dict[str, Tensor]:
    result = {name: out[name] + previous[name] for name in ("rotation", "color", "opacity")}
    if first:
        result["xyz"] = settings.first_offset * out["xyz"] + previous["xyz"]
        result["scale"] = settings.cap - softplus(settings.cap - (previous["scale"] + out["scale"]))
    else:
        offset = previous["scale"].exp() * torch.tanh(out["xyz"])
        result["xyz"] = previous["xyz"] + (rotation_matrices(previous["rotation"]) @ offset[..., None])[..., 0]
        large = previous["scale"].exp().amax(dim=2, keepdim=True) > 0.5 / settings.resolution
        shrunk = (previous["scale"] - math.log(settings.split)).clamp(-100, 0)
        base = torch.where(large, shrunk, previous["scale"]) if settings.shrink else previous["scale"]
        result["scale"] = base - softplus(-out["scale"])
    for name in ("scale", "rotation", "color", "opacity"):
        result[name] = 20 * torch.tanh(result[name] / 20)
    return result


def run_levels(levels: Any, tokens: list[Tensor], start: Tensor, factors: list[int], settings: Any) -> tuple[Any, Any]:
    batch = tokens[0].shape[0]
    logit = math.log(settings.start_opacity / (1 - settings.start_opacity))
    shape = (batch, start.shape[0])
    previous = {
        "xyz": start.expand(batch, -1, -1),
        "scale": start.new_full((*shape, 3), settings.start_log_scale),
        "rotation": start.new_tensor([1.0, 0, 0, 0]).expand(*shape, 4),
        "color": start.new_zeros(*shape, 3),
        "opacity": start.new_full((*shape, 1), logit),
    }
    anchors, gaussians, rows = [], [], 1
    for i, level in enumerate(levels):
        rows *= factors[i]
        features = row_features(level, tokens[i], rows)
        last = i == len(factors) - 1
        if i > 0:
            previous = {name: t.repeat_interleave(factors[i], dim=1) for name, t in previous.items()}
        if not last:
            anchors.append(post(head(level.heads, 0, features), previous, first=i == 0, settings=settings))
            if i == 0:
                previous = anchors[0]
        gaussians.append(post(head(level.heads, 0 if last else 1, features), previous, first=False, settings=settings))
        if not last:
            previous = anchors[-1]
    return gaussians, anchors


def activate(raw: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "means": raw["xyz"],
        "quats": raw["rotation"],
        "scales": raw["scale"].exp(),
        "opacities": 1 / (1 + torch.exp(-raw["opacity"][..., 0])),
        "colors": (0.28209479177387814 * raw["color"] + 0.5).clamp_min(0),
    }
