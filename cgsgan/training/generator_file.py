"""One generator in one file: safetensors, with the whole config in its header, so that the file stands alone.

It may hold half precision and say where it comes from (``training.shipping``); one lies in ``assets``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

GENERATOR_FILE = "generator.safetensors"
FORMAT = "cgsgan-generator"
FORMAT_VERSION = 1
HEADS = "heads."
"""Names of tensors that are not weights begin with this."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another kind; the message is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class GeneratorFile:
    """What a ``generator.safetensors`` holds.

    Attributes:
        config: the experiment's resolved config as plain data.
        images_seen: how far the run was.
        weights: the averaged generator's state.
        provenance: where it comes from, name to text: data, licence, command... Empty while training.
        heads: what was found in photographs: ``ws`` [head, num_ws, w_dim] and ``camera_labels`` [view, 25]. Empty but
            in the files that ``cgsgan invert`` writes.
    """

    config: dict[str, Any]
    images_seen: int
    weights: dict[str, Tensor]
    provenance: dict[str, str] = field(default_factory=dict)
    heads: dict[str, Tensor] = field(default_factory=dict)


def write_generator(path: Path, generator: GeneratorFile) -> None:
    """Write a generator with its config in the header of the file."""
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "config": json.dumps(generator.config),
        "images_seen": str(generator.images_seen),
    }
    if generator.provenance:
        metadata["provenance"] = json.dumps(generator.provenance)
    heads = {HEADS + name: value for name, value in generator.heads.items()}
    save_tensors(path, {**generator.weights, **heads}, metadata)


def read_generator(path: Path | str) -> GeneratorFile:
    """Read a generator file; nothing in it is executed. Half precision becomes float32, which networks compute in.

    Raises:
        CheckpointError: when the file is not one of ours, is damaged, or comes from a newer version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); a generator is a run folder, a checkpoint folder or a "
            "generator.safetensors"
        ) from None
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format name")
        raise CheckpointError(f"{path}: expected a {FORMAT} file, found {found}")
    try:
        version = int(metadata["version"])
        config, images_seen = json.loads(metadata["config"]), int(metadata["images_seen"])
        provenance = json.loads(metadata.get("provenance", "{}"))
        for name, value in (("config", config), ("provenance", provenance)):
            if not isinstance(value, dict):
                raise TypeError(f"the {name} is a {type(value).__name__}, not a mapping")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged header ({error})") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version} is newer than this cgsgan reads ({FORMAT_VERSION}); update cgsgan"
        )
    weights = {name: value.float() if value.dtype == torch.float16 else value for name, value in weights.items()}
    heads = {name.removeprefix(HEADS): weights.pop(name) for name in list(weights) if name.startswith(HEADS)}
    return GeneratorFile(config=config, images_seen=images_seen, weights=weights, provenance=provenance, heads=heads)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors from any device as safetensors, readable by whom the umask says, as other files are.

    Raises:
        OSError: when it cannot be written.
        SafetensorError: likewise.
    """
    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path, metadata=metadata)
    path.chmod(mode)  # the library makes files for their owner alone; runs are shared
