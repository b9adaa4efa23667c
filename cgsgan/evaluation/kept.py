"""What is worth keeping between evaluations: tensors in the user's cache, under a key that names their content."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cgsgan.data.cache import cache_folder, replacing, warn_unwritable


def read_kept(kind: str, key: str) -> dict[str, Tensor] | None:
    """The tensors kept under a key, or None when there are none, or damaged ones."""
    try:
        mapped = load_file(cache_folder() / kind / f"{key}.safetensors")
        # Copies: what is mapped ends the process when somebody cuts the file off.
        return {name: tensor.clone() for name, tensor in mapped.items()}
    except (OSError, SafetensorError):
        return None


def write_kept(kind: str, key: str, tensors: dict[str, Tensor]) -> None:
    """Keep tensors; a cache that cannot be written gives a warning."""
    path = cache_folder() / kind / f"{key}.safetensors"
    try:
        with replacing(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    except OSError as error:
        warn_unwritable(path.parent, error)
