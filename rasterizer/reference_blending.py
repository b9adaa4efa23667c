"""Last stages of the reference: splats into tiles, front to back, and tiles into pixels.

Alpha blending of 3D Gaussian Splatting (Kerbl et al. 2023, section 6). Memory stays bounded: tiles with lists
of similar length are blended together, a few million (splat, pixel) pairs at a time, and again for the
backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rasterizer.constants import ALPHA_MAX, ALPHA_THRESHOLD, TILE_SIZE, TRANSMITTANCE_STOP
from rasterizer.reference_projection import Projection, Settings, tile_boxes

GROUP_PAIRS = 1 << 21  # (splat, pixel) pairs blended at a time; a single longer tile may exceed it


@dataclass(frozen=True)
class TileLists:
    """The splats of each non-empty tile, front to back: ``splat_ids[starts[i] : starts[i] + counts[i]]``."""

    tile_ids: Int64[Tensor, " tile"]
    starts: Int64[Tensor, " tile"]
    counts: Int64[Tensor, " tile"]
    splat_ids: Int64[Tensor, " instance"]


@torch.no_grad()
def bin_splats(projection: Projection, settings: Settings) -> TileLists:
    """List the splats of every tile by depth, equal depths by index."""
    low, high = tile_boxes(projection, settings)
    order = projection.depths.argsort(stable=True)
    spans = (high - low)[order]
    counts = spans.prod(-1)
    splat_ids = order.repeat_interleave(counts)
    rank = torch.arange(len(splat_ids), device=order.device)
    rank = rank - (counts.cumsum(0) - counts).repeat_interleave(counts)
    columns = spans[:, 0].repeat_interleave(counts)
    tile_x, tile_y = low[splat_ids, 0] + rank % columns, low[splat_ids, 1] + rank // columns
    tiles, by_tile = (tile_y * settings.tiles[0] + tile_x).sort(stable=True)
    tile_ids, sizes = tiles.unique_consecutive(return_counts=True)
    return TileLists(tile_ids, sizes.cumsum(0) - sizes, sizes, splat_ids[by_tile])


def compute_alphas(
    sigmas: Float[Tensor, "tile pixel longest"],
    opacities: Float[Tensor, "tile 1 longest"],
    listed: Bool[Tensor, "tile 1 longest"],
    settings: Settings,
) -> Float[Tensor, "tile pixel longest"]:
    """``min(0.99, opacity exp(-sigma))``; zero below the threshold, for sigma < 0 and in the padding.

    Where the bound of 0.99 binds there is no gradient; with ``settings.inria`` it passes as if there were no bound.
    """
    raw = opacities * torch.exp(-sigmas)
    kept = listed & (sigmas >= 0) & (raw >= settings.lowest_alpha)
    alphas = raw.clamp(max=ALPHA_MAX)
    if settings.inria:
        alphas = alphas.detach() + (raw - raw.detach())
    if settings.smooth_threshold > 0:
        ramp = ((raw / ALPHA_THRESHOLD - 1) / (2 * settings.smooth_threshold) + 0.5).clamp(0, 1)
        alphas = alphas * ramp.square() * (3 - 2 * ramp)
    return torch.where(kept, alphas, 0.0)


def pixel_centers(tile_ids: Int64[Tensor, " tile"], settings: Settings) -> Int64[Tensor, "tile pixel 2"]:
    """Integer (x, y) of the pixels of each tile, row by row; their centres lie half a pixel further."""
    corners = torch.stack([tile_ids % settings.tiles[0], tile_ids // settings.tiles[0]], -1) * TILE_SIZE
    steps = torch.arange(TILE_SIZE, device=tile_ids.device)
    return corners.unsqueeze(1) + torch.stack([steps.repeat(TILE_SIZE), steps.repeat_interleave(TILE_SIZE)], -1)


def blend_tiles(
    projection: Projection,
    features: Float[Tensor, "n feature"],
    tile_ids: Int64[Tensor, " tile"],
    lists: Int64[Tensor, "tile longest"],
    settings: Settings,
) -> tuple[Float[Tensor, "tile pixel feature"], Float[Tensor, "tile pixel"]]:
    """Blend the splats listed for some tiles, front to back; -1 fills short lists.

    Returns:
        The sums of ``T alpha feature`` and the transmittance T left at the end. A splat that would bring T to
        ``TRANSMITTANCE_STOP`` or below (with ``settings.inria``: below) is left out of the pixel, and with it
        every later one.
    """
    ids, listed = lists.clamp(min=0), (lists >= 0).unsqueeze(1)
    pixels = pixel_centers(tile_ids, settings).to(features.dtype) + 0.5
    means2d, conics = projection.means2d[ids].unsqueeze(1), projection.conics[ids].unsqueeze(1)
    dx = pixels[:, :, None, 0] - means2d[..., 0]
    dy = pixels[:, :, None, 1] - means2d[..., 1]
    sigmas = 0.5 * (conics[..., 0] * dx * dx + conics[..., 2] * dy * dy) + conics[..., 1] * dx * dy
    alphas = compute_alphas(sigmas, projection.opacities[ids].unsqueeze(1), listed, settings)
    with torch.no_grad():
        left = torch.cumprod(1 - alphas, -1)
        alive = left >= TRANSMITTANCE_STOP if settings.inria else left > TRANSMITTANCE_STOP
    alphas = torch.where(alive, alphas, 0.0)
    after = torch.cumprod(1 - alphas, -1)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1)
    return (alphas * before) @ features[ids], after[..., -1]


def group_tiles(lists: TileLists) -> list[tuple[Int64[Tensor, " tile"], Int64[Tensor, "tile longest"]]]:
    """Tile ids and padded splat lists (-1 fills) of groups of tiles with lists of similar length."""
    order = lists.counts.argsort(descending=True, stable=True)
    lengths = lists.counts[order].tolist()
    groups, start = [], 0
    while start < len(lengths):
        stop = start + max(1, GROUP_PAIRS // (lengths[start] * TILE_SIZE**2))
        rows = order[start:stop]
        steps = torch.arange(lengths[start], device=rows.device)
        places = (lists.starts[rows].unsqueeze(1) + steps).clamp(max=len(lists.splat_ids) - 1)
        inside = steps < lists.counts[rows].unsqueeze(1)
        groups.append((lists.tile_ids[rows], torch.where(inside, lists.splat_ids[places], -1)))
        start = stop
    return groups


def untile(pixels: Float[Tensor, "tile pixel feature"], settings: Settings) -> Float[Tensor, "height width feature"]:
    """Pixels listed by tile as an image, cut to its size."""
    tiles_x, tiles_y = settings.tiles
    grid = pixels.reshape(tiles_y, tiles_x, TILE_SIZE, TILE_SIZE, -1).transpose(1, 2)
    image = grid.reshape(tiles_y * TILE_SIZE, tiles_x * TILE_SIZE, -1)
    return image[: settings.height, : settings.width]


def blend(
    projection: Projection, features: Float[Tensor, "n feature"], lists: TileLists, settings: Settings
) -> tuple[Float[Tensor, "height width feature"], Float[Tensor, "height width 1"]]:
    """Blend all tiles: sums of ``T alpha feature`` and the final transmittance of every pixel."""
    tile_count, pixel_count = settings.tiles[0] * settings.tiles[1], TILE_SIZE**2
    sums = features.new_zeros(tile_count, pixel_count, features.shape[-1])
    left = features.new_ones(tile_count, pixel_count)
    blended = []
    for tile_ids, ids in group_tiles(lists):
        arguments = (projection, features, tile_ids, ids, settings)
        group = checkpoint(blend_tiles, *arguments, use_reentrant=False, preserve_rng_state=False)
        blended.append((tile_ids, *group))
    if blended:
        tile_ids, group_sums, group_left = (torch.cat(parts) for parts in zip(*blended))
        sums, left = sums.index_copy(0, tile_ids, group_sums), left.index_copy(0, tile_ids, group_left)
    return untile(sums, settings), untile(left.unsqueeze(-1), settings)
