"""A timm model of the user's choice: features of pictures and, where it has a classifier, probabilities of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cgsgan.metrics.timm_models import TimmModel, open_timm
from cgsgan.metrics.weight_files import ExtractorError, import_package, read_weights


@dataclass(frozen=True)
class PictureModel:
    """What a network says of pictures.

    Attributes:
        model: the network.
        classes: of its classifier; 0 where it has none.
    """

    model: TimmModel
    classes: int

    @property
    def identity(self) -> str:
        """Its name and a hash of its weights."""
        return f"{self.model.name}-{self.model.fingerprint}"

    @property
    def size(self) -> int:
        """Of the pictures it takes, px; others are resized."""
        return self.model.size

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[Float[Tensor, "image feature"], Float[Tensor, "image class"] | None]:
        """Features, and probabilities of the classes, of RGB pictures in [0, 1]; float32 on the CPU."""
        network: Any = self.model.network
        deep = network.forward_features(self.model.prepare(images))
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
    timm = import_package("timm")
    architecture = model.partition(".")[0]
    if architecture not in timm.list_models():
        near = ", ".join(timm.list_models(f"*{architecture[:6]}*")[:3])
        raise ExtractorError(f"--model: timm has no {model!r}" + (f"; it has {near}, ..." if near else ""))
    options: dict[str, Any] = {}
    if weights is not None:
        options["num_classes"] = _count_classes(read_weights(weights), timm.get_pretrained_cfg(model))
    opened = open_timm(model, weights, device, option="--model", options=options)
    return PictureModel(model=opened, classes=int(getattr(opened.network, "num_classes", 0) or 0))


def _count_classes(state: Mapping[str, Tensor], settings: Any) -> int:
    """Classes of the classifier in a weight file; 0 where it has none."""
    classifier = getattr(settings, "classifier", None) or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return next((len(state[f"{name}.bias"]) for name in names if f"{name}.bias" in state), 0)
