"""Files of weights as state dicts: pickles of whole networks, files of ``torch.save``, safetensors.

Nothing in them is executed. A network in a pickle is a tree of stubs whose ``_parameters``, ``_buffers`` and
``_modules`` are collected into the state dict that the network itself would give.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cgsgan.interop.errors import WeightsError
from cgsgan.interop.pickle_machine import PickleMachine
from cgsgan.interop.pickle_names import call_name, check_name
from cgsgan.interop.records import ArrayRecord, Stub, TensorRecord
from cgsgan.interop.torch_streams import MAGIC, read_stream, read_zip

StateDict = dict[str, Tensor]
ZIP_START = b"PK"
DEEPEST, MOST_MODULES = 64, 20_000
"""Limits of a module tree: objects may be shared, so a small file can describe an endless one."""


def read_networks(path: Path | str, wanted: Collection[str] | None = None) -> dict[str, StateDict]:
    """The networks in a file, name (``G``, ``D``, ``G_ema``...) to state dict; a bare state dict has the name "".

    Args:
        path: the file.
        wanted: names of networks that the caller has a use for; the others are left out, and one must be there. A bare
            state dict is always given. None: all.

    Raises:
        WeightsError: one line: unreadable, damaged, tries to run code, unknown classes, no network in it.
    """
    path = Path(path)
    try:
        value = _read_safetensors(path) if path.suffix == ".safetensors" else read_object(path)
        return _networks(value, wanted, _Budget(path.stat().st_size))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def read_object(path: Path) -> Any:
    """What a pickle or a file of ``torch.save`` holds, as plain data and records.

    Raises:
        WeightsError: as :func:`read_networks`.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(2)
            if start == ZIP_START:
                return read_zip(path, call_name, check_name)
            if start[:1] != b"\x80":
                raise WeightsError("neither a pickle nor a file of torch.save" if start else "an empty file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
                value = PickleMachine(call_name, check_name).read(stream)
                return read_stream(stream, call_name, check_name) if type(value) is int and value == MAGIC else value
    except OSError as error:
        raise WeightsError(f"cannot be read ({error.strerror})") from None


class _Budget:
    """Tensors may share their numbers, so a small file can describe endless copies; all of them fit in the file."""

    def __init__(self, size: int) -> None:
        self.left = size

    def build(self, value: Any, name: str) -> Tensor:
        """The tensor that a record stands for."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, ArrayRecord) and value.value is not None:
            self._spend(value.value.nbytes)
            native = value.value.dtype.newbyteorder("=")
            return torch.from_numpy(value.value.astype(native, order="C", copy=True))
        if not isinstance(value, TensorRecord):
            raise WeightsError(f"expected a tensor at {name[:200]!r}, found a {type(value).__name__}")
        self._spend(value.size)
        return value.build()

    def _spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise WeightsError("damaged: its tensors together are larger than the file")


def _networks(value: Any, wanted: Collection[str] | None, budget: _Budget) -> dict[str, StateDict]:
    if _is_module(value) or _is_state(value):
        return {"": _state(value, budget)}
    entries = value.items if isinstance(value, Stub) else value if isinstance(value, dict) else {}
    entries = {name: entry for name, entry in entries.items() if isinstance(name, str)}
    found = [name for name, entry in entries.items() if _is_module(entry) or _is_state(entry)]
    if not found:
        raise WeightsError("holds no network and no state dict")
    chosen = [name for name in found if wanted is None or name in wanted]
    if not chosen:
        raise WeightsError(f"holds the networks {_listed(found)}; expected {_listed(wanted or ())}")
    return {name: _state(entries[name], budget) for name in chosen}


def _listed(names: Collection[str]) -> str:
    return ", ".join(name if name.isprintable() else repr(name) for name in names)[:200]


def _is_module(value: Any) -> bool:
    tables = ("_parameters", "_buffers", "_modules")
    return isinstance(value, Stub) and all(isinstance(value.state.get(table), dict) for table in tables)


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(entry, TensorRecord | ArrayRecord | Tensor) for entry in value.values())
    )


def _state(value: Any, budget: _Budget) -> StateDict:
    return _collect(value, budget) if isinstance(value, Stub) else {k: budget.build(v, k) for k, v in value.items()}


def _collect(module: Stub, budget: _Budget) -> StateDict:
    """The state dict of a module that was read as a stub, in the order in which torch would list it."""
    state: StateDict = {}
    waiting, seen = [("", module, 0)], 0
    while waiting:
        prefix, part, depth = waiting.pop()
        seen += 1
        if not _is_module(part):
            raise WeightsError(f"expected a module at {prefix[:200]!r}, found something else")
        if depth > DEEPEST or seen > MOST_MODULES:
            raise WeightsError("damaged: its modules contain each other without an end")
        hidden = part.state.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, set | frozenset) else frozenset()
        for name, value in [*part.state["_parameters"].items(), *part.state["_buffers"].items()]:
            if value is not None and name not in hidden:
                state[f"{prefix}{name}"] = budget.build(value, f"{prefix}{name}")
        children = [(f"{prefix}{name}.", child, depth + 1) for name, child in part.state["_modules"].items()]
        waiting.extend(child for child in reversed(children) if child[1] is not None)
    return state


def _read_safetensors(path: Path) -> StateDict:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"not a readable safetensors file ({' '.join(str(error).split())})") from None
