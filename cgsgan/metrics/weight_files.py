"""Pretrained weights and the packages that read them, or one clear line."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

INSTALL = 'pip install "cgsgan[metrics]"'


class ExtractorError(ValueError):
    """Features that cannot be had: a package, a weight file or a download is missing; one line says which."""


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
        raise ExtractorError(f"{path}: not a readable .safetensors or .pth of tensors ({one_line(error)})") from None


def fingerprint(network: nn.Module) -> str:
    """A short hash of all weights, the same on every machine."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def import_package(name: str) -> Any:
    """A module of an optional package.

    Raises:
        ExtractorError: says how to install it.
    """
    package = name.split(".", maxsplit=1)[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExtractorError(f"{package} cannot be imported ({one_line(error)}); {INSTALL}") from None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise ExtractorError(
            f"{package} needs torchvision, which does not fit this torch {torch.__version__} ({one_line(error)}); "
            "install both from one index, such as PyTorch's CPU index for a CPU build"
        ) from None


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks, at most 200 characters of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
