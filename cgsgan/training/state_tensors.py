"""The tensors of networks and optimisers under names of their own, as a safetensors file holds them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def collect_tensors(
    networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """States of networks and optimisers in one flat mapping; every key begins with the name given here."""
    tensors: dict[str, Tensor] = {}
    for name, network in networks.items():
        tensors |= prefixed(name, network.state_dict())
    for name, optimizer in optimizers.items():
        tensors |= flatten_optimizer(name, optimizer)
    return tensors


def load_tensors(
    tensors: Mapping[str, Tensor],
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """The inverse of :func:`collect_tensors`.

    Raises:
        KeyError, RuntimeError, ValueError: when something is missing or of another shape.
    """
    for name, network in networks.items():
        network.load_state_dict(unprefixed(name, tensors))
    for name, optimizer in optimizers.items():
        restore_optimizer(name, optimizer, tensors)


def flatten_optimizer(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors, ``prefix.<parameter number>.<state name>``."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`flatten_optimizer`; learning rates stay those of ``optimizer``."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            index, name = key[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with ``prefix.`` before their names."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors whose names begin with ``prefix.``, without it."""
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}
