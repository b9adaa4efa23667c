"""What the names in a pickle of weights stand for; everything else is refused.

Names of three kinds pass. Some make plain data: tensors, numpy arrays, ordered dicts. Some are only mentioned: numpy
scalar types, torch dtypes. Classes of the published code and of torch's own modules and optimisers become inert
:class:`~cgsgan.interop.records.Stub` objects; the function that would compile the source text which the published
files carry is one of them: its stub keeps class name and state, the source is dropped unread.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from cgsgan.interop import torch_streams
from cgsgan.interop.errors import WeightsError
from cgsgan.interop.records import NUMPY_KINDS, ArrayRecord, DtypeRecord, Name, StorageRecord, Stub, TensorRecord

STUB_PACKAGES = (
    "training.",
    "torch_utils.",
    "dnnlib.",
    "metrics.",
    "camera_utils.",
    "gaussian_splatting.",
    "diff_gaussian_rasterization.",
    "torch.nn.modules.",
    "torch.optim.",
)
"""Packages of the published repositories, and torch's modules: their objects become stubs."""
RECONSTRUCTION = "torch_utils.persistence."
"""Functions in here are called with one mapping: class name, source text and state of an object."""
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64")
MENTIONED = frozenset(
    [f"torch.{name}" for name in (*DTYPES, "bfloat16", "bool", "strided", "contiguous_format", "channels_last")]
    + [f"numpy.{name}" for name in (*DTYPES, "ndarray", "bool_")]
    + [
        f"{package}.{name}"
        for package in ("builtins", "__builtin__")
        for name in ("object", "dict", "list", "tuple", "float", "int", "bool", "str")
    ]
)
"""Names that may stand in a file without being called."""
MENTIONED_PACKAGES = ("torch.nn.functional.", "torch._C._nn.")
"""Activation functions, which modules keep as attributes; likewise."""
Maker = Callable[[tuple[Any, ...]], Any]


def check_name(full: str) -> None:
    """Refuse a name that weights have no use for.

    Raises:
        WeightsError: names it.
    """
    known = full in MENTIONED or full in MAKERS or full in torch_streams.STORAGE_TYPES
    if not known and not is_stub(full) and not full.startswith(MENTIONED_PACKAGES):
        raise WeightsError(f"refers to {full}, which is no part of a network's weights; refused, nothing was run")


def call_name(function: Name, arguments: tuple[Any, ...]) -> Any:
    """What a call of a name gives, made by our own code.

    Raises:
        WeightsError: when it may not be called, or with such arguments.
    """
    maker = MAKERS.get(function.full)
    if maker is not None:
        try:
            return maker(arguments)
        except (ValueError, TypeError) as error:
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(f"damaged: {function.full} with unexpected arguments ({error})") from None
    if function.full.startswith(RECONSTRUCTION):
        return _reconstruct(arguments)
    if is_stub(function.full):
        return Stub(function.full, arguments)
    raise WeightsError(f"calls {function.full}, which is no part of a network's weights; refused, nothing was run")


def is_stub(full: str) -> bool:
    """Whether objects of this class become stubs."""
    return full.startswith(STUB_PACKAGES)


def _reconstruct(arguments: tuple[Any, ...]) -> Stub:
    (meta,) = arguments
    fields = meta.items if isinstance(meta, Stub) else meta
    if not isinstance(fields, dict) or not isinstance(fields.get("class_name"), str):
        raise WeightsError("damaged: an object of the published code without a class name")
    state = fields.get("state")
    if isinstance(state, Stub):
        state = state.items
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise WeightsError(f"damaged: a {fields['class_name'][:60]!r} of the published code without its state")
    return Stub(fields["class_name"], state=dict(state))


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if not arguments:
        return {}
    (pairs,) = arguments
    return {_checked_scalar(key): value for key, value in _checked_list(pairs)}


def _default_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if len(arguments) > 1 or not all(part is None or isinstance(part, Name) for part in arguments):
        raise ValueError("not a class")
    return {}


def _set(arguments: tuple[Any, ...]) -> set[Any]:
    (members,) = arguments
    return {_checked_scalar(member) for member in _checked_list(members)}


def _checked_list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError(f"a {type(value).__name__} where a list was expected")
    return value


def _checked_scalar(value: Any) -> Any:
    if not isinstance(value, str | bytes | int | float):
        raise ValueError(f"a {type(value).__name__} as a key")
    return value


def _encode(arguments: tuple[Any, ...]) -> bytes:
    text, encoding = arguments
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError("not latin1")
    return text.encode("latin1")


def _device(arguments: tuple[Any, ...]) -> Stub:
    return Stub("torch.device", arguments)


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    (sizes,) = arguments
    return tuple(_checked_list(list(sizes) if type(sizes) is tuple else sizes))


def _tensor(arguments: tuple[Any, ...]) -> TensorRecord:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, StorageRecord) or len(arguments) > 7:
        raise ValueError("no storage")
    return TensorRecord(storage, offset, shape, stride)


def _parameter(arguments: tuple[Any, ...]) -> TensorRecord:
    data = arguments[0] if arguments else None
    if not isinstance(data, TensorRecord) or len(arguments) > 4:
        raise ValueError("no tensor")
    return data


def _storage(arguments: tuple[Any, ...]) -> StorageRecord:
    (data,) = arguments
    if type(data) is not bytes:
        raise ValueError("no bytes")
    return torch_streams.read_storage(io.BytesIO(data))


def _dtype(arguments: tuple[Any, ...]) -> DtypeRecord:
    kind = arguments[0] if arguments else None
    if type(kind) is not str or kind.lstrip("<>|=") not in NUMPY_KINDS:
        raise WeightsError("contains a numpy dtype that is not of plain numbers; refused")
    return DtypeRecord(kind.lstrip("<>|="), ">" if kind[0] == ">" else "<")


def _empty_array(arguments: tuple[Any, ...]) -> ArrayRecord:
    kind, shape, _ = arguments
    if not isinstance(kind, Name) or kind.full != "numpy.ndarray" or shape != (0,):
        raise ValueError("no plain array")
    return ArrayRecord()


def _scalar(arguments: tuple[Any, ...]) -> Any:
    dtype, data = arguments
    if not isinstance(dtype, DtypeRecord):
        raise ValueError("no dtype")
    return dtype.array(data, ()).item()


def _array_from_buffer(arguments: tuple[Any, ...]) -> ArrayRecord:
    data, dtype, shape, order = arguments
    if not isinstance(dtype, DtypeRecord) or order not in ("C", "F"):
        raise ValueError("no plain array")
    return ArrayRecord(dtype.array(data, shape, fortran=order == "F"))


MAKERS: dict[str, Maker] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "_codecs.encode": _encode,
    "torch.device": _device,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.storage._load_from_bytes": _storage,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _empty_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array_from_buffer for core in ("core", "_core")},
}
"""Names that may be called, and our function that does what is wanted of each."""
