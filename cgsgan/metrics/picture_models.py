"""A timm model of the user's choice: features of pictures and, where it has a classifier, probabilities of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.metrics.extractors import (
    DINOV2_SIZE,
    ExtractorError,
    _import,
    _load_timm,
    _one_line,
    fingerprint,
    read_weights,
)


@dataclass(frozen=True)
class PictureModel:
    """A network that has seen many pictures.

    Attributes:
        identity: its name and a hash of its weights.
        network: in evaluation mode.
        size: of the pictures it takes, px; others are resized.
        mean: of the pictures it was trained on, per channel.
        std: likewise.
        classes: of its classifier; 0 where it has none.
    """

    identity: str
    network: nn.Module
    size: int
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]
    classes: int

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[Float[Tensor, "image feature"], Float[Tensor, "image class"] | None]:
        """Features, and probabilities of the classes, of RGB pictures in [0, 1]; float32 on the CPU."""
        network: Any = self.network
        size = (self.size, self.size)
        resized = F.interpolate(images.to(self.mean.device), size=size, mode="bicubic", antialias=True)
        deep = network.forward_features((resized.clamp(0, 1) - self.mean) / self.std)
        features = network.forward_head(deep, pre_logits=True).flatten(1).float().cpu()
        if not self.classes:
            return features, None
        return features, network.forward_head(deep).float().softmax(dim=1).cpu()


def open_picture_model(model: str, weights: Path | None = None, device: torch.device | str = "cpu") -> PictureModel:
    """A timm model with weights from a file, or downloaded.

    Args:
        model: as timm names it.
        weights: a .safetensors or .pth in timm's format, with or without a classifier of any number of classes.
        device: where it runs.

    Raises:
        ExtractorError: says which package, model, file or download is missing and how to get it; there are no random
            weights in place of missing ones.
    """
    if weights is not None and not weights.is_file():
        raise ExtractorError(f"--weights: {weights}: no such file")
    timm = _import("timm")
    architecture = model.partition(".")[0]
    if architecture not in timm.list_models():
        near = ", ".join(timm.list_models(f"*{architecture[:6]}*")[:3])
        raise ExtractorError(f"--model: timm has no {model!r}" + (f"; it has {near}, ..." if near else ""))
    options: dict[str, Any] = {}
    if "dinov2" in model or "dinov3" in model:
        options["img_size"] = DINOV2_SIZE
    if weights is not None:
        options["num_classes"] = _count_classes(read_weights(weights), timm.get_pretrained_cfg(model))
    try:
        network = timm.create_model(model, pretrained=weights is None, **options)
    except Exception as error:  # every hub client has errors of its own; the cause stands in the message
        raise ExtractorError(
            f"--model: {model} cannot be had ({_one_line(error)}); get its safetensors file from the hub where there "
            "is a network and give it with --weights"
        ) from None
    if weights is not None:
        _load_timm(network, model, weights)
    network = network.eval().requires_grad_(False).to(device)
    settings = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(settings[key], device=device)[:, None, None] for key in ("mean", "std"))
    return PictureModel(
        identity=f"{model}-{fingerprint(network)}",
        network=network,
        size=DINOV2_SIZE if "img_size" in options else int(settings["input_size"][-1]),
        mean=mean,
        std=std,
        classes=int(getattr(network, "num_classes", 0) or 0),
    )


def _count_classes(state: Mapping[str, Tensor], settings: Any) -> int:
    """Classes of the classifier in a weight file; 0 where it has none."""
    classifier = getattr(settings, "classifier", None) or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return next((len(state[f"{name}.bias"]) for name in names if f"{name}.bias" in state), 0)
