"""The rasterizer in plain torch, for any float type and device: the truth for the compiled cores.

Stages, in the order of the pipeline: ``find_visible`` and ``project`` in ``reference_projection.py``,
``evaluate_colors`` in ``spherical_harmonics.py``, ``bin_splats`` and ``blend`` in ``reference_blending.py``.
Every gradient is autograd's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE
from rasterizer.reference_blending import bin_splats, blend
from rasterizer.reference_projection import Settings, Splats, find_visible, project
from rasterizer.spherical_harmonics import coefficient_count, evaluate_colors


@dataclass(frozen=True, kw_only=True)
class ViewRender:
    """One image of one scene, and how many splats met tiles, were not drawn, were not finite."""

    colors: Float[Tensor, "height width channel"]
    alphas: Float[Tensor, "height width 1"]
    depths: Float[Tensor, "height width 1"]
    instances: int
    culled: int
    nonfinite: int


def render_view(
    splats: Splats,
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    *,
    background: Float[Tensor, " channel"] | None,
    sh_degree: int | None,
    settings: Settings,
) -> ViewRender:
    """Render one scene from one camera; the arguments are those of ``rasterize_reference`` without axes."""
    ids, nonfinite = find_visible(splats, viewmat, K, settings)
    drawn = splats.select(ids)
    projection = project(drawn, viewmat, K, settings)
    colors = drawn.colors
    if sh_degree is not None:
        colors = evaluate_colors(drawn.means, drawn.colors, viewmat, sh_degree)
    features = torch.cat([colors, projection.depths.unsqueeze(-1)], -1)
    lists = bin_splats(projection, settings)
    sums, left = blend(projection, features, lists, settings)
    image, depth_sums = sums[..., :-1], sums[..., -1:]
    covered = left < 1
    return ViewRender(
        colors=image if background is None else image + left * background,
        alphas=1 - left,
        # The inner selection keeps the gradient of uncovered pixels from becoming 0 * inf.
        depths=torch.where(covered, depth_sums / torch.where(covered, 1 - left, 1.0), 0.0),
        instances=len(lists.splat_ids),
        culled=len(splats.means) - len(ids),
        nonfinite=nonfinite,
    )


def rasterize_reference(  # noqa: PLR0913, PLR0917 - the arguments every backend takes
    means: Float[Tensor, "batch n 3"],
    quats: Float[Tensor, "batch n 4"],
    scales: Float[Tensor, "batch n 3"],
    opacities: Float[Tensor, "batch n"],
    colors: Float[Tensor, "batch n *channels"],
    viewmats: Float[Tensor, "batch view 4 4"],
    Ks: Float[Tensor, "batch view 3 3"],
    width: int,
    height: int,
    *,
    backgrounds: Float[Tensor, "batch view channel"] | None = None,
    sh_degree: int | None = None,
    near_plane: float = DEFAULT_NEAR_PLANE,
    far_plane: float = DEFAULT_FAR_PLANE,
    eps2d: float = DEFAULT_EPS2D,
    antialiased: bool = False,
    depth: bool = False,
    inria: bool = False,
    smooth_threshold: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, int | str]]:
    """Rasterize with plain torch: slow, differentiable by autograd, in any float type, on any device.

    The arguments are those of ``rasterizer.rasterize`` with exactly one batch axis; nothing is checked here.
    ``inria`` is ``compat="inria"`` there.

    With ``smooth_threshold`` above 0 (and below 1), the step at alpha = 1/255 becomes a C1 ramp over the relative
    range 1 - smooth_threshold to 1 + smooth_threshold: for finite differences, which the step would spoil.

    Returns:
        colors [batch, view, height, width, channel], alphas and depths [batch, view, height, width, 1]
        (depths None unless asked for), and the counts that ``rasterizer.Render`` explains.
    """
    settings = Settings(
        width=width, height=height, near_plane=near_plane, far_plane=far_plane, eps2d=eps2d,
        antialiased=antialiased, smooth_threshold=smooth_threshold, inria=inria,
    )  # fmt: skip
    # Coefficients beyond the degree are not looked at, not even for NaN.
    used = colors if sh_degree is None else colors[:, :, : coefficient_count(sh_degree)]
    renders: list[ViewRender] = []
    for scene in range(viewmats.shape[0]):
        splats = Splats(means[scene], quats[scene], scales[scene], opacities[scene], used[scene])
        for view in range(viewmats.shape[1]):
            background = None if backgrounds is None else backgrounds[scene, view]
            camera = (viewmats[scene, view], Ks[scene, view])
            renders.append(render_view(splats, *camera, background=background, sh_degree=sh_degree, settings=settings))
    shape = tuple(viewmats.shape[:2])
    info: dict[str, int | str] = {
        name: sum(getattr(render, name) for render in renders) for name in ("instances", "culled", "nonfinite")
    }
    return (
        torch.stack([render.colors for render in renders]).unflatten(0, shape),
        torch.stack([render.alphas for render in renders]).unflatten(0, shape),
        torch.stack([render.depths for render in renders]).unflatten(0, shape) if depth else None,
        {**info, "backend": "reference"},
    )
