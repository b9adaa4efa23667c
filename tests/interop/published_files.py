"""Files of the form in which the networks were published, written by the tests.

No published file was at hand. What is known of the form: a pickle of a dict with G, D, G_ema and settings; networks
are whole ``torch.nn.Module`` objects; those of the authors' own classes are not pickled by reference but as a call of
a function of ``torch_utils.persistence`` with one mapping that holds the class' name, the SOURCE TEXT of its module,
which that function would execute, and the object's state. Assumed beyond that: the mapping's keys ``class_name``,
``module_src`` and ``state``, that it is a ``dnnlib.util.EasyDict`` (a dict with attributes), that the state is the
object's ``__dict__`` with ``_parameters``, ``_buffers`` and ``_modules``, and that modules without that wrapping
(torch's own, and some in ``training``) are pickled as objects usually are.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SOURCE = "import pathlib\npathlib.Path({marker!r}).write_text('the source text was executed')\n"


class EasyDict(dict[str, Any]):
    pass


class Plain(nn.Module):
    """A module of the authors that is pickled by reference."""


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("never called: only its name is written")


class Persistent(nn.Module):
    """A module of the authors that carries its source along."""

    marker = "unset"

    def __reduce__(self) -> Any:
        state = dict(self.__dict__)
        meta = EasyDict(type="class", version=6, module_src=SOURCE.format(marker=self.marker), state=state)
        meta["class_name"] = "SynthesisNetwork"
        return _reconstruct_persistent_obj, (meta,)


PLACES = {
    "torch_utils.persistence": [_reconstruct_persistent_obj],
    "dnnlib.util": [EasyDict],
    "training.networks": [Plain],
}


@contextmanager
def published_modules() -> Iterator[None]:
    """Lets the pickler find our classes under the published names, and no one else after it."""
    saved = {}
    for place, members in PLACES.items():
        for name in (place.split(".")[0], place):
            sys.modules[name] = ModuleType(name)
        for member in members:
            saved[member] = member.__module__
            member.__module__ = place
            setattr(sys.modules[place], member.__name__, member)
    try:
        yield
    finally:
        for member, module in saved.items():
            member.__module__ = module
        for place in PLACES:
            for name in (place.split(".")[0], place):
                sys.modules.pop(name, None)


def make_module(state: dict[str, Tensor], marker: Path) -> nn.Module:
    """A tree of modules with this state dict; leaves are of an unwrapped class, lists are torch's own."""
    root = Persistent()
    root.marker = str(marker)
    root.init_kwargs = EasyDict(z_dim=512, size=np.float32(2), device=torch.device("cpu"), dtype=torch.float32)
    for key, value in state.items():
        *path, name = key.split(".")
        module: nn.Module = root
        for depth, part in enumerate(path):
            if part not in module._modules:
                child = Plain() if depth == len(path) - 1 else nn.ModuleList() if depth == 1 else Persistent()
                if isinstance(child, Persistent):
                    child.marker = str(marker)
                module._modules[part] = child
            module = module._modules[part]  # type: ignore[assignment]
        if value.is_floating_point() and not name.startswith(("resample", "noise_const", "w_avg", "dataset")):
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
        else:
            module.register_buffer(name, value)
    root.register_buffer("scratch", torch.zeros(3), persistent=False)
    return root


def write_pickle(path: Path, networks: dict[str, dict[str, Tensor]], marker: Path, *, protocol: int = 4) -> Path:
    """A training snapshot: networks, settings, what an optimiser keeps."""
    data: dict[str, Any] = {name: make_module(state, marker) for name, state in networks.items()}
    data["training_set_kwargs"] = {"path": "faces", "mean": np.arange(6, dtype=np.float64).reshape(2, 3)}
    data["augment_pipe"] = None
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], betas=(0.0, 0.99))
    weight.sum().backward()
    optimizer.step()
    data["phases"] = [{"opt": optimizer.state_dict(), "interval": 16}]
    with published_modules():
        path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path
