"""Pictures to features, behind one protocol: a random network, Inception-v3 as FID defines it, DINOv2."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cgsgan.metrics import features
from cgsgan.metrics.timm_models import open_timm
from cgsgan.metrics.weight_files import ExtractorError, fingerprint, import_package, one_line, read_weights

ExtractorName = Literal["random", "inception", "dinov2"]
DINOV2_MODEL = "vit_base_patch14_dinov2.lvd142m"


@runtime_checkable
class FeatureExtractor(Protocol):
    """Describes pictures by numbers."""

    @property
    def identity(self) -> str:
        """Network and weights in one line; statistics of a set are kept under it."""
        ...

    def __call__(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """Features of RGB pictures in [0, 1], float32 on the CPU; values outside are cut off first."""
        ...


@dataclass(frozen=True)
class RandomFeatures:
    """:func:`cgsgan.metrics.features.random_features`: no weights, the same numbers everywhere."""

    device: torch.device
    identity: str = f"random-{features.SEED}-{features.FEATURE_COUNT}"

    def __call__(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """See :class:`FeatureExtractor`."""
        return features.random_features(images.to(self.device).clamp(0, 1))


@dataclass(frozen=True)
class NetworkFeatures:
    """A pretrained network.

    Attributes:
        identity: see :class:`FeatureExtractor`.
        network: in evaluation mode, on ``device``.
        describe: 8-bit pictures on the device to features.
        device: where it runs.
    """

    identity: str
    network: nn.Module
    describe: Callable[[UInt8[Tensor, "image 3 height width"]], Float[Tensor, "image feature"]]
    device: torch.device

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """See :class:`FeatureExtractor`. Pictures are rounded to 8 bits, as if they had been saved."""
        pixels = (images.to(self.device).clamp(0, 1) * 255).round().to(torch.uint8)
        return self.describe(pixels).float().cpu()


def open_extractor(
    name: str,
    *,
    weights: Path | None = None,
    model: str = DINOV2_MODEL,
    device: torch.device | str = "cpu",
) -> FeatureExtractor:
    """An extractor by name.

    Args:
        name: ``random``, ``inception`` (2048 pool features) or ``dinov2`` (class token).
        weights: a local file; None downloads what torch-fidelity and timm name, where there is a network.
        model: the timm model for ``dinov2``; any that gives features works.
        device: where it runs.

    Raises:
        ExtractorError: says which package, file or download is missing and how to get it.
    """
    if name not in get_args(ExtractorName):
        raise ExtractorError(f"--features: expected {', '.join(get_args(ExtractorName))}; got {name!r}")
    if weights is not None and name == "random":
        raise ExtractorError("--weights: the random features have none; leave it out or choose inception or dinov2")
    if weights is not None and not weights.is_file():
        raise ExtractorError(f"--weights: {weights}: no such file")
    target = torch.device(device)
    if name == "random":
        return RandomFeatures(target)
    return _open_inception(weights, target) if name == "inception" else _open_dinov2(model, weights, target)


def _open_inception(weights: Path | None, device: torch.device) -> NetworkFeatures:
    fidelity = import_package("torch_fidelity.feature_extractor_inceptionv3")
    url = fidelity.URL_INCEPTION_V3
    try:
        state = (
            read_weights(weights)
            if weights
            else torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        )
    except OSError as error:
        raise ExtractorError(
            f"inception: its weights cannot be downloaded ({one_line(error)}); get {url} where there is a network and "
            "give the file with --weights"
        ) from None
    # The class can only be made from a file, which it unpickles, code and all: give it one that we wrote.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.pth"
        torch.save(state, path)
        try:
            network = fidelity.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
            )
        except RuntimeError as error:
            source = weights or url
            raise ExtractorError(f"{source}: its weights do not fit Inception-v3 ({one_line(error)})") from None
    network = network.eval().requires_grad_(False).to(device)
    return NetworkFeatures(
        identity=f"inception-{fingerprint(network)}",
        network=network,
        describe=lambda pixels: network(pixels)[0],
        device=device,
    )


def _open_dinov2(model: str, weights: Path | None, device: torch.device) -> NetworkFeatures:
    opened = open_timm(model, weights, device, option="dinov2", options={"num_classes": 0})
    return NetworkFeatures(
        identity=f"{model}-{opened.size}-{opened.fingerprint}",
        network=opened.network,
        describe=lambda pixels: opened.network(opened.prepare(pixels.float() / 255)),
        device=device,
    )
