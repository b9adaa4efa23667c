"""Pictures to features, behind one protocol: a random network, Inception-v3 as FID defines it, DINOv2."""

from __future__ import annotations

import hashlib
import importlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cgsgan.metrics import features

ExtractorName = Literal["random", "inception", "dinov2"]
DINOV2_MODEL = "vit_base_patch14_dinov2.lvd142m"
DINOV2_SIZE = 224
INSTALL = 'pip install "cgsgan[metrics]"'


class ExtractorError(ValueError):
    """Features that cannot be had: a package, a weight file or a download is missing; one line says which."""


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
    return _open_inception(weights, target) if name == "inception" else _open_timm(model, weights, target)


def _open_inception(weights: Path | None, device: torch.device) -> NetworkFeatures:
    fidelity = _import("torch_fidelity.feature_extractor_inceptionv3")
    url = fidelity.URL_INCEPTION_V3
    try:
        state = (
            read_weights(weights)
            if weights
            else torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        )
    except OSError as error:
        raise ExtractorError(
            f"inception: its weights cannot be downloaded ({_one_line(error)}); get {url} where there is a network and "
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
            raise ExtractorError(f"{source}: its weights do not fit Inception-v3 ({_one_line(error)})") from None
    network = network.eval().requires_grad_(False).to(device)
    return NetworkFeatures(
        identity=f"inception-{fingerprint(network)}",
        network=network,
        describe=lambda pixels: network(pixels)[0],
        device=device,
    )


def _open_timm(model: str, weights: Path | None, device: torch.device) -> NetworkFeatures:
    timm = _import("timm")
    options = {"num_classes": 0} | ({"img_size": DINOV2_SIZE} if "dinov2" in model or "dinov3" in model else {})
    try:
        network = timm.create_model(model, pretrained=weights is None, **options)
    except Exception as error:  # every hub client has errors of its own; the cause stands in the message
        raise ExtractorError(
            f"dinov2: {model} cannot be had ({_one_line(error)}); get its safetensors file from the hub where there is "
            "a network and give it with --weights"
        ) from None
    if weights is not None:
        _load_timm(network, model, weights)
    network = network.eval().requires_grad_(False).to(device)
    settings = timm.data.resolve_model_data_config(network)
    side = DINOV2_SIZE if "img_size" in options else settings["input_size"][-1]
    mean, std = (torch.tensor(settings[key], device=device)[:, None, None] for key in ("mean", "std"))

    def describe(pixels: Tensor) -> Tensor:
        resized = F.interpolate(pixels.float() / 255, size=(side, side), mode="bicubic", antialias=True)
        return network((resized.clamp(0, 1) - mean) / std)

    identity = f"{model}-{side}-{fingerprint(network)}"
    return NetworkFeatures(identity=identity, network=network, describe=describe, device=device)


def _load_timm(network: nn.Module, model: str, weights: Path) -> None:
    """Load a hub file as timm would: converted to this image size, without its classifier, but nothing missing."""
    state = read_weights(weights)
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        if convert is not None:
            state = convert(state, network)
        found = network.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise ExtractorError(f"{weights}: its weights do not fit {model} ({_one_line(error)})") from None
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    extra = [key for key in found.unexpected_keys if not key.startswith(heads)]
    if found.missing_keys or extra:
        raise ExtractorError(
            f"{weights}: its weights do not fit {model}: {len(found.missing_keys)} missing, {len(extra)} unknown, "
            f"such as {[*found.missing_keys, *extra][0]}"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file or a ``.pth`` of nothing but tensors; no code in it is run.

    Raises:
        ExtractorError: when it is neither.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers share no class of errors
        raise ExtractorError(f"{path}: not a readable .safetensors or .pth of tensors ({_one_line(error)})") from None


def fingerprint(network: nn.Module) -> str:
    """A short hash of all weights, the same on every machine."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _import(name: str) -> Any:
    package = name.split(".", maxsplit=1)[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExtractorError(f"{package} cannot be imported ({_one_line(error)}); {INSTALL}") from None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise ExtractorError(
            f"{package} needs torchvision, which does not fit this torch {torch.__version__} ({_one_line(error)}); "
            "install both from one index, such as PyTorch's CPU index for a CPU build"
        ) from None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
