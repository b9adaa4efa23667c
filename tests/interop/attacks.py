"""Pickles that try to run code, or to reach something that could.

Each is an object to pickle, or the bytes of a pickle. The harmless sign that one has worked is a marker file.
"""

from __future__ import annotations

import builtins
import collections
import functools
import io
import operator
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.interop.published_files import PLACES


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


def named(module: str, name: str, *arguments: str) -> bytes:
    """Protocol 4: a call of ``module`` ``name``, which may have dots, with strings."""

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    count = b"\x85" if len(arguments) == 1 else b"\x86"
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + b"".join(map(text, arguments)) + count + b"R."


def attacks(marker: Path) -> dict[str, Any]:
    touch, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    run = Call(os.system, touch)
    storage = io.BytesIO()
    torch.save({"a": run}, storage, _use_new_zipfile_serialization=False)
    legacy = torch.ones(1).untyped_storage()
    legacy = torch.storage.TypedStorage(wrap_storage=legacy, dtype=torch.float32, _internal=True).__reduce__()[1][0]
    return {
        "os.system": run,
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "open": Call(open, str(marker), "w"),
        "import": Call(__import__, "os"),
        "partial": Call(functools.partial, os.system, touch),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "attrgetter": Call(operator.attrgetter("system")),
        "methodcaller": Call(operator.methodcaller("system", touch), Call(__import__, "os")),
        "numpy loads": named("numpy", "load", str(marker)),
        "numpy f2py": named("numpy.f2py", "compile", code),
        "numpy lib": named("numpy.testing._private.utils", "runstring", code, "{}"),
        "torch.load": Call(torch.load, io.BytesIO(pickle.dumps(run))),
        "torch.hub": named("torch.hub", "load_state_dict_from_url", "file://x"),
        "load_from_bytes": Call(torch.storage._load_from_bytes, storage.getvalue()),
        "load_from_bytes of a pickle": Call(torch.storage._load_from_bytes, pickle.dumps(run)),
        "load_from_bytes of nothing": Call(torch.storage._load_from_bytes, legacy[:-2]),
        "dotted": named("collections", "OrderedDict.__init__.__globals__", "x"),
        "dotted builtin": named("builtins", "set.__class__.__subclasses__", "x"),
        "dotted numpy": named("numpy.core.multiarray", "_reconstruct.__globals__", "x"),
        "spaces": b"\x80\x02cos\nsystem #torch.nn.modules.x\n\x8c\x01x\x85R.",
        "stub package that is not one": named("training_evil", "run", touch),
        "OrderedDict of a call": Call(collections.OrderedDict, [(1, run)]),
        "OrderedDict of a string": Call(collections.OrderedDict, touch),
        "defaultdict with a factory": Call(collections.defaultdict, eval),
        "defaultdict of a stub": b"\x80\x02ccollections\ndefaultdict\n(X\x01\x00\x00\x00aX\x01\x00\x00\x00btR.",
        "set of lists": Call(set, [[1]]),
        "state of a class": b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
        "state of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01sb.",
        "state of a list": b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.",
        "a call of a result": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
        "extension": b"\x80\x02\x82\x01.",
        "inst": b"(S'touch x'\nios\nsystem\n.",
        "protocol 2 inst": b"\x80\x02(ios\nsystem\n.",
        "obj": b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00xo.",
        "persistent": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "text persistent": b"\x80\x02Pabc\n.",
        "out-of-band": b"\x80\x05\x97.",
        "keywords": b"\x80\x04ctraining.x\nY\n)}\x8c\x01aK\x01s\x92.",
        "numpy objects": pickle.dumps({"a": np.array([run], dtype=object)}),
        "numpy structured": pickle.dumps({"a": np.zeros(2, dtype=[("x", "f4")])}),
        "numpy memory": pickle.dumps({"a": np.memmap}),
        "code object": b"\x80\x02cmarshal\nloads\nX\x01\x00\x00\x00x\x85R.",
        "setattr": Call(setattr, run, "a", 1),
        "breakpoint": Call(builtins.breakpoint),
        "reconstruction without a state": Call(PLACES["torch_utils.persistence"][0], {"class_name": "A"}),
        "reconstruction of nothing": Call(PLACES["torch_utils.persistence"][0], 3),
        "reconstruction with two arguments": Call(PLACES["torch_utils.persistence"][0], {}, {}),
    }
