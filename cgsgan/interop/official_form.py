"""Which tensor of a published network is which part of ours, and the strict way from one to the other.

Ours merge what is computed together (heads, styles of all blocks). So every published tensor is a *slot*: a view, of
the published shape, into a tensor of our network. The slots give the expected keys and shapes, they are copied into
to load published weights, and read to write ours under the published names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cgsgan.interop.errors import WeightsError

MOST_NAMED = 4
"""So many keys are named in an error, then their number."""
LONGEST_KEY = 150
CLOSE = 1e-5
"""Constants that the published networks keep among their weights must be what our networks compute with."""


@dataclass(frozen=True)
class OfficialForm:
    """A network of ours as the published code would list it.

    Attributes:
        slots: published key to a view into our network.
        constants: published key to the value that it must have, because our network has it built in.
        settings: published key to its usual value; another one is the caller's to take over.
        optional: keys that may be there and that no picture depends on, with their shapes.
    """

    slots: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, Tensor] = field(default_factory=dict)
    optional: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, key: str, layer: Any) -> None:
        """The weight, and the bias if there is one, of a layer."""
        self.slots[f"{key}.weight"] = layer.weight.data
        if layer.bias is not None:
            self.slots[f"{key}.bias"] = layer.bias.data

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every required key with its shape."""
        return {key: tuple(value.shape) for key, value in self.state_dict().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Our network's tensors, not copied, under the published names."""
        return self.slots | self.constants | self.settings

    def check_keys(self, state: Mapping[str, Tensor], network: str) -> None:
        """Hold keys and shapes of a published state dict against ours.

        Raises:
            WeightsError: names missing and unknown keys, and wrong shapes.
        """
        expected = self.shapes()
        known = expected | self.optional
        missing = (key for key in expected if key not in state)
        unknown = (key for key in state if key not in known)
        problems = _listed("missing", missing), _listed("unknown", unknown)
        _refuse([*problems, _listed("of another shape", _misshapen(state, known))], network)

    def load(self, state: Mapping[str, Tensor], network: str) -> None:
        """Copy a published state dict into our network, all of it or nothing.

        Args:
            state: published key to tensor.
            network: what is expected, for errors.

        Raises:
            WeightsError: as :meth:`check_keys`, and names constants that are different.
        """
        self.check_keys(state, network)
        changed = (key for key, value in self.constants.items() if not _close(state[key], value))
        _refuse([_listed("of an unknown value", changed)], network)
        with torch.no_grad():
            for key, slot in self.slots.items():
                slot.copy_(state[key])


def make_low_pass() -> Tensor:
    """The 4 x 4 filter [1, 3, 3, 1]; the published networks keep one in every layer, whether it resamples or not."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(taps, taps)


def shape_of(state: Mapping[str, Tensor], key: str, dimensions: int, network: str) -> tuple[int, ...]:
    """The shape of a tensor from which sizes are inferred.

    Raises:
        WeightsError: when it is missing or has another number of dimensions.
    """
    shape = tuple(state[key].shape) if key in state else None
    if shape is None or len(shape) != dimensions:
        found = "it is missing" if shape is None else f"found the shape {list(shape)}"
        raise WeightsError(f"not the weights of {network}: expected {key} with {dimensions} dimensions, {found}")
    return shape


def count_layers(state: Mapping[str, Tensor], key: Callable[[int], str]) -> int:
    """How many of ``key(0)``, ``key(1)``... there are, without a gap."""
    count = 0
    while key(count) in state:
        count += 1
    return count


def _refuse(problems: list[str], network: str) -> None:
    if any(problems):
        raise WeightsError(f"not the weights of {network}: {'; '.join(filter(None, problems))}")


def _close(found: Tensor, expected: Tensor) -> bool:
    return bool(torch.isclose(found.double(), expected.double(), rtol=CLOSE, atol=CLOSE).all())


def _misshapen(state: Mapping[str, Tensor], known: Mapping[str, tuple[int, ...]]) -> Iterable[str]:
    for key, shape in known.items():
        if key in state and tuple(state[key].shape) != shape:
            yield f"{key} {list(state[key].shape)} instead of {list(shape)}"


def _listed(problem: str, keys: Iterable[str]) -> str:
    keys = [key[:LONGEST_KEY] if key.isprintable() else repr(key[:LONGEST_KEY]) for key in keys]
    if not keys:
        return ""
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return f"{problem}: {', '.join(keys[:MOST_NAMED])}{more}"
