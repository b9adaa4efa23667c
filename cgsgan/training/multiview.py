"""The multi-view step: V views of one scene, gradients averaged where the scene ends and the renderer begins."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cgsgan.types import Gaussians, Scenes


def multiview_backward(
    scenes: Scenes,
    view_loss: Callable[[Scenes, int], Tensor],
    *,
    views: int,
    regularizer: Tensor | None = None,
) -> None:
    """Accumulate the gradient of ``mean over views of view_loss + regularizer`` in the generator's parameters.

    The scenes become a leaf; each view is rendered, judged and differentiated down to it, and its graph is freed
    before the next; then one backward pass runs through the generator. So memory does not grow with V and the
    generator is differentiated once. By linearity the result is the gradient of the mean of the V losses (CGS-GAN,
    multi-view regularisation). Fields carry networks that each view's pass reaches directly: there the loss of a
    view is divided by V, not the gradient at the leaf.

    Args:
        scenes: B generated scenes with the generator's graph behind them.
        view_loss: gives the loss of view v of all scenes, from the leaf and v. Each view is judged in a call of its
            own, so that no minibatch-std group ever holds two views of one identity.
        views: V >= 1.
        regularizer: a further scalar with a graph into the generator, or None.
    """
    leaf = scenes.map(lambda tensor: tensor.detach().requires_grad_())
    carries_networks = not isinstance(scenes, Gaussians)
    for view in range(views):
        loss = view_loss(leaf, view)
        (loss / views if carries_networks else loss).backward()
    outputs: list[Tensor] = []
    gradients: list[Tensor | None] = []
    for output, cut in zip(scenes.tensors(), leaf.tensors(), strict=True):
        if output.requires_grad and cut.grad is not None:
            outputs.append(output)
            gradients.append(cut.grad if carries_networks else cut.grad.div_(views))
    if regularizer is not None and regularizer.requires_grad:
        outputs.append(regularizer)
        gradients.append(None)
    torch.autograd.backward(outputs, gradients)
