"""timm models of the user's choice, with weights from a file or downloaded; never with random ones in their place."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.metrics.weight_files import ExtractorError, fingerprint, import_package, one_line, read_weights

DINO_SIZE = 224
"""DINO networks take pictures of any size; this is the one their published figures are for."""


@dataclass(frozen=True)
class TimmModel:
    """A network that has seen many pictures, and what it expects of them.

    Attributes:
        name: as timm names it.
        network: in evaluation mode.
        size: of the pictures it takes, px; others are resized.
        mean: of the pictures it was trained on, per channel.
        std: likewise.
    """

    name: str
    network: nn.Module
    size: int
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of all weights."""
        return fingerprint(self.network)

    def prepare(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image 3 size size"]:
        """RGB pictures in [0, 1], resized and standardised, on the network's device."""
        size = (self.size, self.size)
        resized = F.interpolate(images.to(self.mean.device), size=size, mode="bicubic", antialias=True)
        return (resized.clamp(0, 1) - self.mean) / self.std


def open_timm(
    name: str,
    weights: Path | None,
    device: torch.device | str,
    *,
    option: str,
    options: Mapping[str, Any] | None = None,
) -> TimmModel:
    """A timm model, ready to describe pictures.

    Args:
        name: as timm names it.
        weights: a .safetensors or .pth in timm's format; None downloads.
        device: where it runs.
        option: how errors name what the user asked for.
        options: of ``timm.create_model``.

    Raises:
        ExtractorError: says which package, file or download is missing and how to get it.
    """
    timm = import_package("timm")
    sized = {"img_size": DINO_SIZE} if "dinov2" in name or "dinov3" in name else {}
    try:
        network = timm.create_model(name, pretrained=weights is None, **sized, **(options or {}))
    except Exception as error:  # every hub client has errors of its own; the cause stands in the message
        raise ExtractorError(
            f"{option}: {name} cannot be had ({one_line(error)}); get its safetensors file from the hub where there is "
            "a network and give it with --weights"
        ) from None
    if weights is not None:
        _load(network, name, weights)
    network = network.eval().requires_grad_(False).to(device)
    settings = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(settings[key], device=device)[:, None, None] for key in ("mean", "std"))
    size = DINO_SIZE if sized else int(settings["input_size"][-1])
    return TimmModel(name=name, network=network, size=size, mean=mean, std=std)


def _load(network: nn.Module, model: str, weights: Path) -> None:
    """Load a hub file as timm would: converted to this image size, without its classifier, but nothing missing."""
    state = read_weights(weights)
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        if convert is not None:
            state = convert(state, network)
        found = network.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise ExtractorError(f"{weights}: its weights do not fit {model} ({one_line(error)})") from None
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    extra = [key for key in found.unexpected_keys if not key.startswith(heads)]
    if found.missing_keys or extra:
        raise ExtractorError(
            f"{weights}: its weights do not fit {model}: {len(found.missing_keys)} missing, {len(extra)} unknown, "
            f"such as {[*found.missing_keys, *extra][0]}"
        )
