"""Rasterizing as two opaque operators of torch, for graphs: ``torch.compile``, ``torch.export``.

``rasterizer::render`` and ``rasterizer::render_backward`` take and return tensors whose shapes follow from those of the
inputs. The tiles' lists have a size that depends on the data, so they do not cross: the backward operator renders
again. Eager calls do not come here, they keep their lists (``autograd.py``, ``cuda_autograd.py``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rasterizer.autograd import Call, RasterizeCpu
from rasterizer.averaging import divide_by_alphas
from rasterizer.constants import DEFAULT_EPS2D, DEFAULT_FAR_PLANE, DEFAULT_NEAR_PLANE
from rasterizer.cuda_autograd import PIPELINE, make_pass
from rasterizer.cuda_stages import Options

TENSORS = (
    "Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor colors, Tensor viewmats, Tensor Ks, "
    "Tensor? backgrounds"
)
TENSOR_COUNT = 8
# sh_degree and max_instances are -1 for None.
OPTIONS = (
    "SymInt width, SymInt height, int sh_degree, float near_plane, float far_plane, float eps2d, bool antialiased, "
    "bool depth, bool inria, bool deterministic, int max_instances"
)
# The second tag, of newer versions of torch, keeps inductor from capturing the operators in CUDA graphs: without a
# capacity, the host asks the GPU how many instances there are.
TAGS = tuple(getattr(torch.Tag, name) for name in ("pt2_compliant_tag", "cudagraph_unsafe") if hasattr(torch.Tag, name))
LIBRARY = torch.library.Library("rasterizer", "DEF")
LIBRARY.define(
    f"render({TENSORS}, {OPTIONS}) -> (Tensor colors, Tensor alphas, Tensor depth_sums, Tensor counts)",
    tags=TAGS,
)
LIBRARY.define(
    f"render_backward(Tensor? v_colors, Tensor? v_alphas, Tensor? v_depth_sums, {TENSORS}, {OPTIONS}, bool[] wanted) "
    "-> Tensor[]",
    tags=TAGS,
)


@dataclass(frozen=True)
class Settings:
    """The numbers of the operators, in the order of their schemas."""

    width: int
    height: int
    sh_degree: int
    near_plane: float
    far_plane: float
    eps2d: float
    antialiased: bool
    depth: bool
    inria: bool
    deterministic: bool
    max_instances: int

    def restore(self) -> dict[str, Any]:
        """The options of a backend."""
        values = asdict(self)
        return values | {name: None for name in ("sh_degree", "max_instances") if values[name] < 0}


def is_served_by_cuda(means: Tensor) -> bool:
    return means.is_cuda


def render_sums(tensors: tuple[Tensor | None, ...], settings: Settings) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Colours, alphas and depth sums, differentiable, and counts [3]: instances, culled, not finite."""
    options = settings.restore()
    means = tensors[0]
    assert means is not None
    if is_served_by_cuda(means):
        *images, info = make_pass(PIPELINE, tensors, Options(**options))
    else:
        del options["deterministic"], options["max_instances"]
        call = Call(**options)
        images = RasterizeCpu.apply(call, *tensors)
        info = call.info
    counts = [torch.as_tensor(info[name], device=means.device) for name in ("instances", "culled", "nonfinite")]
    return *images, torch.stack(counts)  # type: ignore[return-value]


def render(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator ``rasterizer::render``; without ``depth`` the depth sums are empty."""
    tensors, settings = arguments[:TENSOR_COUNT], Settings(*arguments[TENSOR_COUNT:])
    with torch.no_grad():
        colors, alphas, depths, counts = render_sums(tensors, settings)
    return colors, alphas, colors.new_empty(0) if depths is None else depths, counts


def render_backward(*arguments: Any) -> list[Tensor]:
    """The operator ``rasterizer::render_backward``: gradients of the tensors, empty where not wanted."""
    incoming, *rest = arguments[:3], *arguments[3:]
    tensors, wanted = rest[:TENSOR_COUNT], rest[-1]
    leaves = [None if t is None else t.detach().requires_grad_(want) for t, want in zip(tensors, wanted)]
    with torch.enable_grad():
        *images, _ = render_sums(tuple(leaves), Settings(*rest[TENSOR_COUNT:-1]))
    used = [(image, v) for image, v in zip(images, incoming) if image is not None and v is not None]
    outputs, v_outputs = [image for image, _ in used], [v for _, v in used]
    chosen = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    gradients = iter(torch.autograd.grad(outputs, chosen, v_outputs, materialize_grads=True))
    nothing = outputs[0].new_empty(0)
    return [next(gradients) if leaf is not None and leaf.requires_grad else nothing.clone() for leaf in leaves]


def fake_render(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shapes of ``render``."""
    means, colors, viewmats = (arguments[i] for i in (0, 4, 5))
    settings = Settings(*arguments[TENSOR_COUNT:])
    shape = (*viewmats.shape[:2], settings.height, settings.width)
    return (
        means.new_empty((*shape, colors.shape[-1])),
        means.new_empty((*shape, 1)),
        means.new_empty((*shape, 1) if settings.depth else (0,)),
        means.new_empty(3, dtype=torch.int64),
    )


def fake_render_backward(*arguments: Any) -> list[Tensor]:
    """Shapes of ``render_backward``."""
    tensors, wanted = arguments[3 : 3 + TENSOR_COUNT], arguments[-1]
    means = arguments[3]
    return [torch.empty_like(t) if t is not None and want else means.new_empty(0) for t, want in zip(tensors, wanted)]


def keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:TENSOR_COUNT])
    ctx.options = inputs[TENSOR_COUNT:]


def differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Backward of ``render``, in terms of ``render_backward``."""
    v_colors, v_alphas, v_depth_sums, _ = grads
    settings = Settings(*ctx.options)
    wanted = list(ctx.needs_input_grad[:TENSOR_COUNT])
    gradients = torch.ops.rasterizer.render_backward(
        v_colors, v_alphas, v_depth_sums if settings.depth else None, *ctx.saved_tensors, *ctx.options, wanted
    )
    return *(v if want else None for v, want in zip(gradients, wanted)), *(None for _ in ctx.options)


for key in ("CPU", "CUDA"):
    LIBRARY.impl("render", render, key)
    LIBRARY.impl("render_backward", render_backward, key)
torch.library.register_fake("rasterizer::render", fake_render, lib=LIBRARY)
torch.library.register_fake("rasterizer::render_backward", fake_render_backward, lib=LIBRARY)
torch.library.register_autograd("rasterizer::render", differentiate, setup_context=keep_inputs, lib=LIBRARY)


def rasterize_opaque(  # noqa: PLR0913, PLR0917 - the arguments every backend takes
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    backgrounds: Tensor | None = None,
    sh_degree: int | None = None,
    near_plane: float = DEFAULT_NEAR_PLANE,
    far_plane: float = DEFAULT_FAR_PLANE,
    eps2d: float = DEFAULT_EPS2D,
    antialiased: bool = False,
    depth: bool = False,
    inria: bool = False,
    deterministic: bool = True,
    max_instances: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]:
    """``rasterize_cpu`` or ``rasterize_cuda``, whichever serves the tensors' device, as one operator of a graph.

    The counts in the result's info are tensors.
    """
    images, alphas, sums, counts = torch.ops.rasterizer.render(
        means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, width, height,
        -1 if sh_degree is None else sh_degree, near_plane, far_plane, eps2d, antialiased, depth, inria, deterministic,
        -1 if max_instances is None else max_instances,
    )  # fmt: skip
    instances, culled, nonfinite = counts.unbind()
    info = {"instances": instances, "culled": culled, "nonfinite": nonfinite, "backend": means.device.type}
    if max_instances is not None:
        info["overflowed"] = instances > max_instances
    return images, alphas, divide_by_alphas(sums, alphas) if depth else None, info
