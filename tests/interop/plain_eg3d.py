"""EG3D's generator on the PUBLISHED state-dict keys, plainly, from the published description.

No module of the package is used: weights are modulated per sample, upsampling inserts zeros, every sample on every ray
is kept. It computes in the type of its weights; tests give it float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tests.interop.plain_cgsgan import State, correlate, fc, lrelu, map_latents, softplus

PLANES = {"official": ((0, 1), (0, 2), (2, 0)), "corrected": ((0, 1), (0, 2), (2, 1))}


def insert_zeros(x: Tensor) -> Tensor:
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


def fir(x: Tensor, before: int, after: int) -> Tensor:
    x = functional.pad(x, [before, after, before, after])
    taps = torch.tensor([1.0, 3, 3, 1], dtype=x.dtype) / 8
    kernel = (torch.outer(taps, taps) * 4).expand(x.shape[1], 1, 4, 4)
    return functional.conv2d(x, kernel, groups=x.shape[1])


def styled(state: State, key: str, x: Tensor, w: Tensor, *, up: bool, noise: bool, clamp: float | None) -> Tensor:
    style = fc(state, f"{key}.affine", w)
    weight = state[f"{key}.weight"] * style[:, None, :, None, None]
    weight = weight / (weight.pow(2).sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    if up:  # zeros between pixels, two around: a true convolution to 2 H + 1 pixels
        inserted = functional.pad(insert_zeros(x)[:, :, :-1, :-1], [2, 2, 2, 2])
        flipped = weight.flip(3, 4)
        y = torch.cat([correlate(inserted[[n]], flipped[n]) for n in range(len(x))])
        y = fir(y, 1, 1)
    else:
        y = torch.cat([correlate(functional.pad(x[[n]], [1] * 4), weight[n]) for n in range(len(x))])
    if noise:
        y = y + state[f"{key}.noise_const"] * state[f"{key}.noise_strength"]
    y = lrelu(y + state[f"{key}.bias"][:, None, None])
    return y if clamp is None else y.clamp(-clamp, clamp)


def to_rgb(state: State, key: str, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    style = fc(state, f"{key}.affine", w) / math.sqrt(x.shape[1])
    y = torch.einsum("bchw,oc,bc->bohw", x, state[f"{key}.weight"][:, :, 0, 0], style)
    y = y + state[f"{key}.bias"][:, None, None]
    return y if clamp is None else y.clamp(-clamp, clamp)


def make_planes(state: State, w: Tensor) -> Tensor:
    """[batch, 3, channel, height, width]; one w for all layers."""
    x = state["backbone.synthesis.b4.const"].expand(len(w), -1, -1, -1)
    size, image = 4, None
    while (key := f"backbone.synthesis.b{size}") + ".conv1.weight" in state:
        if size > 4:
            x = styled(state, f"{key}.conv0", x, w, up=True, noise=True, clamp=None)
            assert image is not None
            image = fir(insert_zeros(image), 2, 1)
        x = styled(state, f"{key}.conv1", x, w, up=False, noise=True, clamp=None)
        drawn = to_rgb(state, f"{key}.torgb", x, w, None)
        image = drawn if image is None else image + drawn
        size *= 2
    assert image is not None
    return image.reshape(len(w), 3, -1, *image.shape[2:])


def make_rays(labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    pose, K = labels[:, :16].reshape(-1, 4, 4), labels[:, 16:].reshape(-1, 3, 3)
    origins, directions = [], []
    for row in range(size):
        for column in range(size):
            u, v = (column + 0.5) / size, (row + 0.5) / size
            fx, fy, cx, cy, skew = K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], K[:, 0, 1]
            x, y = (u - cx + cy * skew / fy - skew * v / fy) / fx, (v - cy) / fy
            point = (pose[:, :3, :3] @ torch.stack([x, y, torch.ones_like(x)], dim=1)[..., None])[..., 0]
            directions.append(point / point.norm(dim=1, keepdim=True))
            origins.append(pose[:, :3, 3])
    return torch.stack(origins, dim=1), torch.stack(directions, dim=1)


def look(state: State, planes: Tensor, points: Tensor, box: float, axes: str) -> tuple[Tensor, Tensor]:
    """Raw densities [..., 1] and colours [..., 32] at points [batch, ray, sample, 3]."""
    shape, places = points.shape, points.flatten(1, 2) * (2 / box)
    features = torch.zeros(())
    for plane, pair in enumerate(PLANES[axes]):
        grid = places[..., list(pair)][:, None]
        read = functional.grid_sample(planes[:, plane], grid, align_corners=False)
        features = features + read[:, :, 0].mT / 3
    out = fc(state, "decoder.net.2", softplus(fc(state, "decoder.net.0", features)))
    out = out.reshape(*shape[:3], -1)
    return out[..., :1], torch.sigmoid(out[..., 1:]) * 1.002 - 0.001


def interval(values: Tensor) -> Tensor:
    return (values[:, :, :-1] + values[:, :, 1:]) / 2


def march(raw: Tensor, colors: Tensor, depths: Tensor, white: bool) -> tuple[Tensor, Tensor, Tensor]:
    delta = depths[:, :, 1:] - depths[:, :, :-1]
    alpha = 1 - torch.exp(-softplus(interval(raw) - 1) * delta)
    passed = torch.cat([torch.ones_like(alpha[:, :, :1]), 1 - alpha + 1e-10], dim=2).cumprod(dim=2)[:, :, :-1]
    weights = alpha * passed
    total = weights.sum(dim=2)
    depth = ((weights * interval(depths)).sum(dim=2) / total).nan_to_num(torch.inf)
    depth = depth.clamp(depths.min(), depths.max())
    features = (weights * interval(colors)).sum(dim=2)
    if white:
        features = features + 1 - total
    return features * 2 - 1, depth, weights


def importance(depths: Tensor, weights: Tensor, count: int) -> Tensor:
    z, w = depths.flatten(0, 1)[..., 0], weights.flatten(0, 1)[..., 0]
    w = functional.avg_pool1d(functional.max_pool1d(w[:, None], 2, 1, padding=1), 2, 1)[:, 0] + 0.01
    bins, inner = (z[:, 1:] + z[:, :-1]) / 2, w[:, 1:-1] + 1e-5
    cdf = torch.cat([torch.zeros_like(inner[:, :1]), (inner / inner.sum(dim=1, keepdim=True)).cumsum(dim=1)], dim=1)
    u = torch.linspace(0, 1, count, dtype=z.dtype).expand(len(z), -1).contiguous()
    index = torch.searchsorted(cdf, u, right=True)
    below, above = (index - 1).clamp_min(0), index.clamp_max(inner.shape[1])
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    step = torch.where(high - low < 1e-5, 1.0, high - low)
    fine = bins.gather(1, below) + (u - low) / step * (bins.gather(1, above) - bins.gather(1, below))
    return fine.reshape(*depths.shape[:2], count, 1)


def resize(x: Tensor, size: int) -> Tensor:
    if x.shape[2] == size:
        return x
    return functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def refine(state: State, image: Tensor, x: Tensor, w: Tensor) -> Tensor:
    size = len(state["superresolution.block1.conv1.noise_const"])
    entry = {512: 128, 256: 128, 128: 64}[size]
    x, image = resize(x, entry), resize(image, entry)
    for block, up in (("block0", size == 4 * entry), ("block1", True)):
        key = f"superresolution.{block}"
        x = styled(state, f"{key}.conv0", x, w, up=up, noise=False, clamp=256)
        x = styled(state, f"{key}.conv1", x, w, up=False, noise=False, clamp=256)
        image = (fir(insert_zeros(image), 2, 1) if up else image) + to_rgb(state, f"{key}.torgb", x, w, 256)
    return image


def plain_pictures(
    state: State,
    z: Tensor,
    labels: Tensor,
    *,
    resolution: int,
    near: float = 2.25,
    far: float = 3.3,
    box: float = 1.0,
    axes: str = "official",
    white: bool = False,
) -> dict[str, Tensor]:
    """``images`` and ``raw_images`` in [-1, 1] and ``depths`` along rays, as the published code gives them."""
    w = torch.cat([map_latents(state, z[[n]], labels[[n]], key="backbone.mapping") for n in range(len(z))])
    planes = make_planes(state, w)
    origins, directions = make_rays(labels, resolution)
    coarse = torch.linspace(near, far, 48, dtype=z.dtype) + 0.5 * (far - near) / 47
    coarse = coarse[None, None, :, None].expand(*origins.shape[:2], -1, -1)

    def along(depths: Tensor) -> tuple[Tensor, Tensor]:
        return look(state, planes, origins[:, :, None] + depths * directions[:, :, None], box, axes)

    raw, colors = along(coarse)
    fine = importance(coarse, march(raw, colors, coarse, white)[2], 48)
    more_raw, more_colors = along(fine)
    depths, order = torch.cat([coarse, fine], dim=2).sort(dim=2)
    raw = torch.cat([raw, more_raw], dim=2).gather(2, order)
    colors = torch.cat([colors, more_colors], dim=2)
    colors = colors.gather(2, order.expand_as(colors))
    features, distance, _ = march(raw, colors, depths, white)
    features, distance = (t.mT.unflatten(2, (resolution, resolution)) for t in (features, distance))
    return {
        "images": refine(state, features[:, :3], features, w),
        "raw_images": features[:, :3],
        "depths": distance,
    }
