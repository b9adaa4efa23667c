"""Tensors' numbers as torch writes them: inside another pickle, in its older stream of pickles, and in its zip files.

torch's own reader is not used: what it unpickles goes through the same machine as everything else.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cgsgan.interop.errors import WeightsError
from cgsgan.interop.pickle_machine import ByteStream, Call, PickleMachine
from cgsgan.interop.records import Name, StorageRecord

MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of torch's older stream; then protocol, facts about the machine, the object, the keys, the numbers."""
PROTOCOL = 1001
STORAGE_TYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
ZIP_ERRORS = (zipfile.BadZipFile, struct.error, ValueError, LookupError, EOFError, RuntimeError, OSError, OverflowError)
"""What Python's zip reader raises for damaged files, as far as fuzzing has shown, and their neighbours."""
CheckName = Callable[[str], None]


class Storages:
    """The storages that the persistent identifiers of one file stand for, by key."""

    def __init__(self) -> None:
        self.by_key: dict[str, StorageRecord] = {}

    def load(self, identifier: Any) -> StorageRecord | Name:
        """The storage of ``("storage", type, key, location, count[, view])``; where it was does not matter here.

        In the older stream also ``("module", class, file, source text)``, which is the class; the text is dropped.
        """
        if type(identifier) is tuple and len(identifier) == 4 and isinstance(identifier[1], Name):
            return identifier[1]
        if type(identifier) is not tuple or len(identifier) not in (5, 6) or identifier[0] != "storage":
            raise WeightsError("damaged: refers to something that is not a storage")
        parts: tuple[Any, ...] = identifier
        kind, key, count, view = parts[1], parts[2], parts[4], parts[5:]
        known = isinstance(kind, Name) and kind.full in STORAGE_TYPES
        if not known or type(key) is not str or view not in ((), (None,)):
            raise WeightsError("damaged: a storage of an unknown kind")
        if type(count) is not int or count < 0:
            raise WeightsError("damaged: a storage of an impossible size")
        record = self.by_key.setdefault(key, StorageRecord(STORAGE_TYPES[kind.full], count))
        if (record.dtype, record.count) != (STORAGE_TYPES[kind.full], count):
            raise WeightsError("damaged: one storage of two sizes or kinds")
        return record


def _refuse_call(function: Name, _: tuple[Any, ...]) -> Any:
    raise WeightsError(f"calls {function.full} inside the numbers of a tensor; refused, nothing was run")


def _check_storage_type(full: str) -> None:
    if full not in STORAGE_TYPES:
        raise WeightsError(f"refers to {full} inside the numbers of a tensor; refused, nothing was run")


def read_storage(stream: ByteStream) -> StorageRecord:
    """One storage that lies as torch's older stream inside another pickle.

    Raises:
        WeightsError: when it is damaged, or holds anything else.
    """
    if PickleMachine(_refuse_call, _check_storage_type).read(stream) != MAGIC:
        raise WeightsError("damaged: the numbers of a tensor do not begin as torch writes them")
    record = read_stream(stream, _refuse_call, _check_storage_type)
    if not isinstance(record, StorageRecord):
        raise WeightsError("damaged: the numbers of a tensor are no storage")
    return record


def read_stream(stream: ByteStream, call: Call, check_name: CheckName) -> Any:
    """The object of torch's older stream, from behind its magic number.

    Raises:
        WeightsError: when it is damaged, or refused.
    """
    protocol = PickleMachine(call, check_name).read(stream)
    facts = PickleMachine(call, check_name).read(stream)
    if protocol != PROTOCOL or not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise WeightsError("damaged, or torch wrote it in an unknown version or on a big-endian machine")
    storages = Storages()
    result = PickleMachine(call, check_name, storages.load).read(stream)
    keys = PickleMachine(call, check_name).read(stream)
    if type(keys) is not list or any(type(key) is not str or key not in storages.by_key for key in keys):
        raise WeightsError("damaged: lists storages that nothing uses")
    for key in keys:
        record = storages.by_key[key]
        header = stream.read(8)
        if len(header) != 8 or struct.unpack("<q", header)[0] != record.count:
            raise WeightsError("truncated or damaged: the numbers of a tensor are not there")
        record.fill(stream.read(record.size))
    return result


def read_zip(path: Path, call: Call, check_name: CheckName) -> Any:
    """The object of a file that ``torch.save`` wrote, without their shared numbers being read twice.

    Raises:
        WeightsError: when it is damaged, or refused.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _read_entries(file, path.stat().st_size, call, check_name)
    except WeightsError:
        raise
    except ZIP_ERRORS as error:
        raise WeightsError(f"truncated or damaged zip file ({' '.join(str(error).split())[:200]})") from None


def _read_entries(file: zipfile.ZipFile, size: int, call: Call, check_name: CheckName) -> Any:
    entries = {entry.filename: entry for entry in file.infolist()}
    # torch does not compress; compressed or overlapping entries could be larger than the file that they come in.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise WeightsError("a zip file with compressed entries, which torch does not write; refused")
    if sum(entry.file_size for entry in file.infolist()) > size:
        raise WeightsError("damaged: its entries are larger than the zip file itself")
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise WeightsError("a zip file that torch did not write: expected one folder with a data.pkl")
    (root,) = roots
    order = f"{root}byteorder"
    if order in entries and file.read(order) != b"little":
        raise WeightsError("written on a big-endian machine, which is not supported")
    storages = Storages()
    with file.open(f"{root}data.pkl") as stream:
        result = PickleMachine(call, check_name, storages.load).read(io.BytesIO(stream.read()))
    for key, record in storages.by_key.items():
        if f"{root}data/{key}" not in entries:
            raise WeightsError("damaged: the numbers of a tensor are not there")
        record.fill(file.read(f"{root}data/{key}"))
    return result
