"""A machine for pickles that has no way to run anything.

Python's own unpickler imports what a pickle names, calls it, and sets attributes of the results; leaving it only some
of the names still leaves it doing these things. Here the opcodes are read one by one (``pickletools``, which only
parses) and interpreted on a stack of plain values and of inert records: a global is never imported but becomes a
:class:`~cgsgan.interop.records.Name`; "calling" one looks its full name up in a table of our own functions, each of
which checks its arguments; "building" an object stores its state in a record. What is not in the table is refused by
name. There is no attribute access on anything that a pickle brings, hence nothing to chain.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from cgsgan.interop.errors import WeightsError
from cgsgan.interop.records import ArrayRecord, DtypeRecord, Name, StorageRecord, Stub, TensorRecord

RECORDS = (Name, Stub, StorageRecord, TensorRecord)
SCALARS = (str, bytes, int, float, bool, type(None))
NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")
TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
PUSHED = frozenset(NUMBERS + TEXTS)
"""Opcodes that push their own argument."""
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
MARK = object()


@runtime_checkable
class ByteStream(Protocol):
    """What opcodes are read from. ``read`` of more than there is gives what there is, without making room first."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


Call = Callable[[Name, tuple[Any, ...]], Any]


class PickleMachine:
    """Reads one pickle.

    Args:
        call: what a call of a name with arguments gives; refuses what it does not know.
        check_name: refuses names that may not even be mentioned.
        load_persistent: what a persistent identifier stands for; None: there must be none.
    """

    def __init__(
        self, call: Call, check_name: Callable[[str], None], load_persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.call, self.check_name, self.load_persistent = call, check_name, load_persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, stream: ByteStream) -> Any:
        """The value of the pickle that starts at the stream's position; the stream is left after it.

        Raises:
            WeightsError: when it is damaged, or holds anything but plain data and known records.
        """
        try:
            for name, argument in _opcodes(stream):
                if name == "STOP":
                    return self._pop()
                self._step(name, argument)
        except WeightsError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"truncated or damaged pickle at byte {stream.tell()} ({reason})") from None
        raise WeightsError("truncated or damaged pickle: it has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in PUSHED:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name == "MARK":
            self.stack.append(MARK)
        elif name not in ("PROTO", "FRAME"):
            method = getattr(self, f"_op_{name.lower()}", None)
            if method is None:
                raise WeightsError(f"contains the pickle instruction {name}, which weights do not need; refused")
            method(argument)

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a mark where a value was expected")
        return value

    def _pop_marked(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not MARK:
            start -= 1
            if start < 0:
                raise ValueError("no mark")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def _top(self) -> Any:
        if self.stack[-1] is MARK:
            raise ValueError("a mark where a value was expected")
        return self.stack[-1]

    def _op_bytearray8(self, argument: bytearray) -> None:
        self.stack.append(bytes(argument))

    def _op_pop(self, _: Any) -> None:
        self.stack.pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._pop_marked()

    def _op_binput(self, index: int) -> None:
        self.memo[index] = self._top()

    _op_long_binput = _op_binput

    def _op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self._top()

    def _op_binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _op_long_binget = _op_binget

    def _op_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_marked()))

    def _op_tuple1(self, _: Any) -> None:
        self._push_tuple(1)

    def _op_tuple2(self, _: Any) -> None:
        self._push_tuple(2)

    def _op_tuple3(self, _: Any) -> None:
        self._push_tuple(3)

    def _push_tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def _op_append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _op_appends(self, _: Any) -> None:
        self._extend(self._pop_marked())

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list | Stub):
            raise ValueError(f"entries appended to a {type(target).__name__}")
        (target.elements if isinstance(target, Stub) else target).extend(values)

    def _op_setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def _op_setitems(self, _: Any) -> None:
        self._update(self._pop_marked())

    def _update(self, flat: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict | Stub) or len(flat) % 2:
            raise ValueError(f"items set in a {type(target).__name__}")
        items = target.items if isinstance(target, Stub) else target
        for key, value in zip(flat[::2], flat[1::2]):
            items[_checked_key(key)] = value

    def _op_additems(self, _: Any) -> None:
        values = self._pop_marked()
        target = self._top()
        if not isinstance(target, set):
            raise ValueError(f"members added to a {type(target).__name__}")
        target.update(map(_checked_key, values))

    def _op_frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(_checked_key, self._pop_marked())))

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_name(module, name)

    def _op_stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push_name(module, name)

    def _push_name(self, module: Any, name: Any) -> None:
        full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
        if not re.fullmatch(r"[A-Za-z_][\w.]{0,200}", full):
            raise WeightsError(f"names something that cannot be a class ({full[:60]!r}); refused")
        self.check_name(full)
        self.stack.append(Name(full))

    def _op_reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name) or type(arguments) is not tuple:
            raise ValueError(f"a call of a {type(function).__name__}")
        self.stack.append(self.call(function, arguments))

    _op_newobj = _op_reduce

    def _op_newobj_ex(self, _: Any) -> None:
        if self._pop():
            raise WeightsError("makes an object from keyword arguments, which weights do not need; refused")
        self._op_reduce(None)

    def _op_build(self, _: Any) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(target, DtypeRecord | ArrayRecord) and type(state) is tuple:
            target.set_state(state)
        elif isinstance(target, Stub):
            for part in state if type(state) is tuple and len(state) == 2 else (state,):
                target.state.update(_checked_attributes(part))
        elif isinstance(target, dict):
            _checked_attributes(state)  # a state dict's version numbers; nothing here asks for them
        else:
            raise WeightsError(f"sets attributes of a {type(target).__name__}; refused")

    def _op_binpersid(self, _: Any) -> None:
        if self.load_persistent is None:
            raise WeightsError("refers to data outside of the pickle; refused")
        self.stack.append(self.load_persistent(self._pop()))


def _opcodes(stream: Any) -> Iterator[tuple[str, Any]]:
    for opcode, argument, _ in pickletools.genops(stream):
        yield opcode.name, argument


def _checked_key(key: Any) -> Any:
    """Keys are hashed, so they may not be containers of containers."""
    if isinstance(key, SCALARS + RECORDS) or (type(key) is tuple and all(isinstance(part, SCALARS) for part in key)):
        return key
    raise ValueError(f"a {type(key).__name__} as a key")


def _checked_attributes(state: Any) -> dict[str, Any]:
    if state is None:
        return {}
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"a {type(state).__name__} as the attributes of an object")
    return state
