"""CGS-GAN's generator and discriminator on the PUBLISHED state-dict keys, plainly, from the published description.

No module of the package is used, nothing is merged or folded: rows are ``[batch, gaussian, channel]``, parents are
repeated, rotations are matrices, convolutions are sums over taps, filters are four numbers squared. It computes in the
type of its weights; tests give it float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]
HEADS = 8
STEP_RATIOS = (1, 4, 4, 4, 2, 2, 2, 2)


def fc(state: State, key: str, x: Tensor, *, m: float = 1.0) -> Tensor:
    weight = state[f"{key}.weight"]
    return x @ (weight * (m / math.sqrt(weight.shape[1]))).T + state[f"{key}.bias"] * m


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.2 * x, x) * math.sqrt(2)


def second_moment(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-8).sqrt()


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def map_latents(state: State, z: Tensor, label: Tensor | None = None, *, key: str = "mapping_network") -> Tensor:
    embed = state[f"{key}.embed.weight"]
    label = embed.new_zeros(1, embed.shape[1]) if label is None else label
    y = second_moment(fc(state, f"{key}.embed", label))
    x = torch.cat([second_moment(z), y.expand(len(z), -1)], dim=1)
    layer = 0
    while f"{key}.fc{layer}.weight" in state:
        x = lrelu(fc(state, f"{key}.fc{layer}", x, m=0.01))
        layer += 1
    return x


def input_features(state: State, points: Tensor) -> Tensor:
    """The line table is read with (0, P_a) as (x, y): x hits the middle of the cells, y leaves the one row of them."""
    linear = "point_gen.conv_in.learnable_pe.ffm.linear"
    waves = torch.sin(points @ state[f"{linear}.weight"].T + state[f"{linear}.bias"])
    table, lines = state["point_gen.conv_in.const_pe.const_pe"], 0
    middle = table.shape[3] // 2
    for axis in range(3):
        cell = (table[axis, :, 0, middle - 1] + table[axis, :, 0, middle]) / 2
        lines = lines + (1 - points[:, axis : axis + 1].abs() / 2) * cell
    return torch.cat([waves, lines / math.sqrt(3)], dim=1)


def normalized(state: State, key: str, x: Tensor, w: Tensor) -> Tensor:
    mean = x.mean(dim=1, keepdim=True)
    std = (x - mean).pow(2).mean(dim=1, keepdim=True).sqrt()
    gamma, beta = fc(state, f"{key}.gamma", w)[:, None], fc(state, f"{key}.beta", w)[:, None]
    return (x - mean) / (std + 1e-8) * gamma + beta


def attention(state: State, key: str, x: Tensor) -> Tensor:
    batch, tokens, width = x.shape
    q, k, v = fc(state, f"{key}.c_qkv", x).reshape(batch, tokens, HEADS, -1).split(width // HEADS, dim=3)
    scale = (width // HEADS) ** -0.25
    weights = torch.einsum("bihc,bjhc->bhij", q * scale, k * scale).softmax(dim=3)
    return fc(state, f"{key}.c_proj", torch.einsum("bhij,bjhc->bihc", weights, v).reshape(batch, tokens, width))


def mlp(state: State, key: str, x: Tensor) -> Tensor:
    hidden = fc(state, f"{key}.c_fc", x)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))) * math.sqrt(2)
    return fc(state, f"{key}.c_proj", hidden)


def block(state: State, key: str, x: Tensor, w: Tensor) -> Tensor:
    x = (
        x
        + attention(state, f"{key}.attn", normalized(state, f"{key}.ln_1", x, w)) * fc(state, f"{key}.ls_1", w)[:, None]
    )
    return x + mlp(state, f"{key}.mlp", normalized(state, f"{key}.ln_2", x, w)) * fc(state, f"{key}.ls_2", w)[:, None]


def rotate(quats: Tensor, vectors: Tensor) -> Tensor:
    w, x, y, z = (quats / (quats.norm(dim=-1, keepdim=True) + 0.001)).unbind(-1)
    matrix = torch.stack(
        [
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        ],
        dim=-1,
    ).unflatten(-1, (3, 3))
    return (matrix * vectors[..., None, :]).sum(dim=-1)


def heads(state: State, kind: str, level: int, features: Tensor) -> State:
    names = ("xyz", "scale", "rotation", "color", "opacity")
    return {name: fc(state, f"point_gen.{kind}.{name}.{level}", features) for name in names}


def post(head: State, previous: State, thr: Tensor, resolution: int, *, first: bool) -> State:
    out = {name: head[name] + previous[name] for name in ("rotation", "color", "opacity")}
    if first:
        out["xyz"] = 0.2 * head["xyz"]
        out["scale"] = thr - softplus(thr - (previous["scale"] + head["scale"]))
    else:
        out["xyz"] = previous["xyz"] + rotate(previous["rotation"], previous["scale"].exp() * torch.tanh(head["xyz"]))
        split = torch.exp((thr - math.log(0.5 / resolution)) / (math.log2(resolution) - 4))
        large = previous["scale"].exp().amax(dim=-1, keepdim=True) > 0.5 / resolution
        base = torch.where(large, (previous["scale"] - split.log()).clamp(-100, 0), previous["scale"])
        out["scale"] = base - softplus(-head["scale"])
    for name in ("scale", "rotation", "color", "opacity"):
        out[name] = 20 * torch.tanh(out[name] / 20)
    return out


def plain_generator(state: State, ws: Tensor) -> tuple[State, list[State]]:
    """Raw Gaussians of all levels and raw anchors per level, from ws [batch, num_ws, w_dim]."""
    batch, points = len(ws), torch.tanh(state["_xyz"])
    x = input_features(state, points).expand(batch, -1, -1)
    levels = sum(f"point_gen.upsample_layers.{i}.subpixel.weight" in state for i in range(9))
    resolution, tokens = 2 ** (levels + 3), []
    for row in range(6):
        x = block(state, f"point_gen.transformer.first_layers.{row}", x, ws[:, row])
    tokens.append(x)
    for row in range(levels - 1):
        x = block(state, f"point_gen.transformer.resblocks.{row}", x, ws[:, 6 + row])
        tokens.append(x)
    names = ("scale", "rotation", "color", "opacity")
    previous = {name: state[f"point_gen.{name}_init"].to(x.dtype).expand(batch, x.shape[1], -1) for name in names}
    thr, gaussians, anchors, rows = state["point_gen.scale_threshold"], [], [], 1
    for level, h in enumerate(tokens):
        rows *= STEP_RATIOS[level]
        key = f"point_gen.upsample_layers.{level}"
        split = lrelu(fc(state, f"{key}.subpixel", h)).reshape(batch, h.shape[1] * rows, -1)
        carried = h if level == 0 else fc(state, f"{key}.res_fc", h)
        features = (carried.repeat_interleave(rows, dim=1) + split) / math.sqrt(2)
        if level > 0:
            previous = {name: t.repeat_interleave(STEP_RATIOS[level], dim=1) for name, t in previous.items()}
        if level < levels - 1:
            head = heads(state, "anchors", level, features)
            anchors.append(post(head, previous, thr, resolution, first=level == 0))
            if level == 0:
                previous = anchors[0]
        gaussians.append(post(heads(state, "gaussians", level, features), previous, thr, resolution, first=False))
        if level < levels - 1:
            previous = anchors[-1]
    merged = {name: torch.cat([g[name] for g in gaussians], dim=1) for name in gaussians[0]}
    merged["xyz"] = merged["xyz"].clamp(-0.5, 0.5)
    return merged, anchors


def activate(raw: State) -> State:
    return {
        "means": raw["xyz"],
        "quats": raw["rotation"],
        "scales": raw["scale"].exp(),
        "opacities": 1 / (1 + torch.exp(-raw["opacity"][..., 0])),
        "colors": (0.28209479177387814 * raw["color"] + 0.5).clamp_min(0),
    }


def correlate(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Correlation without padding, one product per tap."""
    k = weight.shape[2]
    size, total = (x.shape[2] - k) // stride + 1, 0
    for i in range(k):
        for j in range(k):
            window = x[:, :, i : i + stride * (size - 1) + 1 : stride, j : j + stride * (size - 1) + 1 : stride]
            total = total + torch.einsum("bchw,oc->bohw", window, weight[:, :, i, j])
    assert isinstance(total, Tensor)
    return total


def blur(x: Tensor, pad: int) -> Tensor:
    x, total = functional.pad(x, [pad] * 4), 0
    size = x.shape[2] - 3
    for i, a in enumerate((1, 3, 3, 1)):
        for j, b in enumerate((1, 3, 3, 1)):
            total = total + x[:, :, i : i + size, j : j + size] * (a * b / 64)
    assert isinstance(total, Tensor)
    return total


def conv(state: State, key: str, x: Tensor, *, pad: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    """Activated and clamped when there is a bias (everything but the skips)."""
    weight = state[f"{key}.weight"]
    y = correlate(functional.pad(x, [pad] * 4), weight / math.sqrt(weight[0].numel()), stride)
    if f"{key}.bias" not in state:
        return y * gain
    return (lrelu(y + state[f"{key}.bias"][:, None, None]) * gain).clamp(-256 * gain, 256 * gain)


def minibatch_std(x: Tensor) -> Tensor:
    group = min(4, len(x))
    y = x.reshape(group, len(x) // group, 1, *x.shape[1:])
    deviation = ((y - y.mean(dim=0)).pow(2).mean(dim=0) + 1e-8).sqrt().mean(dim=(2, 3, 4))
    planes = deviation.reshape(-1, 1, 1, 1).repeat(group, 1, *x.shape[2:])
    return torch.cat([x, planes], dim=1)


def plain_discriminator(state: State, images: Tensor, labels: Tensor) -> Tensor:
    """Logits of images in [-1, 1]; of six channels for EG3D's."""
    size, half = images.shape[2], math.sqrt(0.5)
    x = conv(state, f"b{size}.fromrgb", images, pad=0)
    while size > 4:
        skip = conv(state, f"b{size}.skip", blur(x, 1)[:, :, ::2, ::2], pad=0, gain=half)
        x = conv(state, f"b{size}.conv0", x, pad=1)
        x = skip + conv(state, f"b{size}.conv1", blur(x, 2), pad=0, stride=2, gain=half)
        size //= 2
    camera = second_moment(fc(state, "mapping.embed", labels))
    for layer in range(8):
        camera = lrelu(fc(state, f"mapping.fc{layer}", camera, m=0.01))
    x = conv(state, "b4.conv", minibatch_std(x), pad=1).flatten(1)
    x = fc(state, "b4.out", lrelu(fc(state, "b4.fc", x)))
    return (x * camera).sum(dim=1, keepdim=True) / math.sqrt(x.shape[1])
