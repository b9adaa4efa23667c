"""How the surfaces of generated heads look beside those of real ones: FID of normal maps (FID-N of WYSIWYG)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cgsgan.cameras import Cameras
from cgsgan.data.depth_truth import DepthTruth
from cgsgan.evaluation.studio import Studio
from cgsgan.metrics.consistency import OPAQUE
from cgsgan.metrics.depth import reduce_depths
from cgsgan.metrics.extractors import FeatureExtractor
from cgsgan.metrics.figures import Figures, compare_sets
from cgsgan.rendering.inspection import depth_normals, normal_colors, turn_to_camera

NORMAL_SCENES = 128


def normal_figures(
    studio: Studio, extractor: FeatureExtractor, truth: DepthTruth, z: Float[Tensor, "scene z_dim"], run: str
) -> Figures:
    """Distance of features of normal maps; of generated heads as renderers give them, of real ones from their depth.

    Few real maps make the figure large, whatever is compared: it ranks generators on one set.

    Args:
        studio: makes the maps, at the cameras of the truth.
        extractor: of the features.
        truth: real heads; reduced to the source's resolution where they are larger.
        z: latents; the first ``NORMAL_SCENES`` are looked at.
        run: name of this measurement, for its progress.

    Returns:
        ``normals_fid``; with the random network's features ``normals_frd``, too.
    """
    size = min(studio.source.resolution, truth.depths.shape[-1])
    maps = true_normal_maps(truth, size).flatten(0, 1)
    real = torch.cat([extractor(part.to(studio.accelerator.device)).cpu() for part in maps.split(studio.batch_size)])

    def describe(index: Tensor) -> Float[Tensor, "index feature"]:
        cameras = truth.cameras.map(lambda t: t.expand(len(index), *t.shape))
        normals, alphas = studio.render_normals(z[index], cameras, size=size)
        maps = normal_maps(normals, alphas[..., 0] > OPAQUE, cameras.map(lambda t: t.to(normals)))
        features = extractor(maps.flatten(0, 1))
        return features.unflatten(0, (len(index), -1)).flatten(1)

    views = truth.depths.shape[1]
    found = studio.share(describe, min(NORMAL_SCENES, len(z)), f"{run}: normals")
    fake = found.unflatten(1, (views, -1)).flatten(0, 1)
    figures = compare_sets(real, fake, {"fid"}, random=extractor.identity.startswith("random-"))
    return {f"normals_{name}": value for name, value in figures.items()}


def true_normal_maps(truth: DepthTruth, size: int) -> Float[Tensor, "person view 3 size size"]:
    """Normal maps of real heads from their depth maps, reduced to ``size``."""
    depths = reduce_depths(truth.depths, size)
    cameras = truth.cameras.map(lambda t: t.expand(len(depths), *t.shape))
    shown = ~depths.isnan()
    return normal_maps(depth_normals(depths.nan_to_num(nan=0.0).unsqueeze(-1), cameras), shown, cameras)


def normal_maps(
    normals: Float[Tensor, "head view size size 3"], shown: Bool[Tensor, "head view size size"], cameras: Cameras
) -> Float[Tensor, "head view 3 size size"]:
    """Normals in the axes of their cameras as colours, on white where nothing is shown.

    Args:
        normals: unit vectors, world axes.
        shown: pixels with a surface.
        cameras: ``[head, view]``.
    """
    colors = normal_colors(turn_to_camera(normals, cameras)).clamp(0, 1)
    return torch.where(shown.unsqueeze(-1), colors, 1.0).movedim(-1, 2)
