"""A generator file to give away: half precision, no places of the machine it was made on, and where it comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PureWindowsPath
from typing import Any

from torch import Tensor

from cgsgan.training.generator_file import CheckpointError, GeneratorFile

REQUIRED = ("data", "licence", "command")
"""What a shipped generator must say of itself: what it was trained on, whose that is, and how to make it again."""


def make_shippable(generator: GeneratorFile, provenance: dict[str, str]) -> GeneratorFile:
    """The same generator in half precision, with a provenance, and with file names in place of paths.

    Args:
        generator: the averaged weights of a run.
        provenance: name to text; must hold ``REQUIRED``.

    Raises:
        CheckpointError: when the provenance lacks something, or a weight does not fit half precision (above 65,504, or
            not finite).
    """
    missing = [name for name in REQUIRED if not provenance.get(name, "").strip()]
    if missing:
        raise CheckpointError(f"a shipped generator must name its {', '.join(missing)}")
    weights = {name: _halve(name, value) for name, value in generator.weights.items()}
    return replace(generator, config=without_places(generator.config), weights=weights, provenance=provenance)


def without_places(value: Any) -> Any:
    """Plain data with every path reduced to its file name."""
    if isinstance(value, dict):
        return {name: without_places(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [without_places(entry) for entry in value]
    return PureWindowsPath(value).name if isinstance(value, str) else value  # it takes both kinds of slashes


def _halve(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    half = value.half()
    if not bool(half.isfinite().all()):
        raise CheckpointError(f"{name}: holds a value that is no finite half-precision number: {value.abs().max():g}")
    return half
