"""Files of weights: what is read, what is refused, and that nothing in them ever runs."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from cgsgan.interop.errors import WeightsError
from cgsgan.interop.pickles import read_networks, read_object
from tests.interop.attacks import Call, attacks
from tests.interop.published_files import published_modules, write_pickle

EXAMPLES = 150
"""Of each kind of hostile bytes; many more were tried once, 20,000 mutants and 5,000 random pickles."""
PLACE = st.floats(0, 1, exclude_max=True)
STATE = {
    "_xyz": torch.randn(4, 3),
    "point_gen.layers.0.weight": torch.randn(3, 4).t(),
    "point_gen.layers.0.bias": torch.randn(4).half(),
    "point_gen.layers.1.resample_filter": torch.ones(2, 2),
    "point_gen.rotation_init": torch.tensor([1, 0, 0, 0]),
    "mapping.fc.weight": torch.randn(2, 2).double(),
    "mapping.fc.noise_strength": torch.tensor(0.5),
    "mapping.fc.empty": torch.zeros(0, 3),
}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return set(found) == set(expected) and all(
        torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in expected.items()
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_networks_without_running_their_source(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    networks = {"G": STATE, "D": {"b4.fc.weight": torch.ones(2, 3)}, "G_ema": STATE}
    file = write_pickle(tmp_path / "network.pkl", networks, marker, protocol=protocol)
    assert b"the source text was executed" in file.read_bytes()
    found = read_networks(file)
    assert set(found) == {"G", "D", "G_ema"}
    assert same(found["G_ema"], STATE)
    assert same(found["D"], networks["D"])
    assert set(read_networks(file, wanted=("D", "E"))) == {"D"}
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_files_of_torch_save(tmp_path: Path, zipped: bool) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    path = tmp_path / "weights.pt"
    torch.save({"G_ema": module.state_dict(), "step": 3}, path, _use_new_zipfile_serialization=zipped)
    assert same(read_networks(path)["G_ema"], dict(module.state_dict()))
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    assert same(read_networks(path)[""], STATE)
    torch.save(module, path, _use_new_zipfile_serialization=zipped)
    assert same(read_networks(path)[""], dict(module.state_dict()))


def test_reads_safetensors_and_arrays(tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in STATE.items()}
    save_file(state, tmp_path / "weights.safetensors")
    assert same(read_networks(tmp_path / "weights.safetensors")[""], state)
    arrays = {"a": np.arange(6, dtype=">f4").reshape(2, 3), "b": np.asfortranarray(np.ones((2, 3))), "c": np.ones(())}
    for protocol in (2, 4, 5):
        (tmp_path / "arrays.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
        found = read_networks(tmp_path / "arrays.pkl")[""]
        assert {key: value.tolist() for key, value in found.items()} == {k: v.tolist() for k, v in arrays.items()}


NAMES = sorted(attacks(Path("x")))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inside", [False, True])
def test_code_is_refused_and_does_not_run(name: str, inside: bool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    attack, path = attacks(marker)[name], tmp_path / "attack.pkl"
    with published_modules():
        if not isinstance(attack, bytes):
            attack = pickle.dumps({"G_ema": attack} if inside else attack, protocol=4)
        elif inside:  # as a value behind something harmless
            attack = attack[:2] + b"}X\x01\x00\x00\x00a" + attack[2:-1] + b"s."
    path.write_bytes(attack)
    with pytest.raises(WeightsError) as caught:
        read_networks(path)
    assert not marker.exists()
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.__suppress_context__


def test_the_attacks_would_have_worked(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name in ("os.system", "eval", "exec", "open", "methodcaller"):
        marker.unlink(missing_ok=True)
        pickle.loads(pickle.dumps(attacks(marker)[name]))
        assert marker.exists(), name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("os.system", r"refers to (posix|nt)\.system.*nothing was run"),
        ("eval", r"refers to builtins\.eval"),
        ("dotted", r"refers to collections\.OrderedDict\.__init__\.__globals__"),
        ("load_from_bytes", r"refers to (posix|nt)\.system inside the numbers of a tensor"),
        ("extension", "pickle instruction EXT1"),
        ("state of a function", "sets attributes of a Name"),
        ("numpy objects", "numpy dtype that is not of plain numbers"),
        ("partial", r"refers to functools\.partial"),
    ],
)
def test_refusals_name_what_was_refused(name: str, words: str, tmp_path: Path) -> None:
    attack = attacks(tmp_path / "marker")[name]
    (tmp_path / "a.pkl").write_bytes(attack if isinstance(attack, bytes) else pickle.dumps(attack))
    with pytest.raises(WeightsError, match=words):
        read_networks(tmp_path / "a.pkl")


def test_functions_of_torch_may_be_named_but_not_called(tmp_path: Path) -> None:
    """Modules keep their activation functions as attributes."""
    softplus = torch.nn.functional.softplus
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"act": softplus, "G": {"a": torch.ones(1)}}))
    assert same(read_networks(tmp_path / "a.pkl")["G"], {"a": torch.ones(1)})
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"act": Call(softplus, 1)}))
    with pytest.raises(WeightsError, match=r"calls torch\..*softplus"):
        read_networks(tmp_path / "a.pkl")


def test_unknown_classes_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G_ema": Path("x")}))
    with pytest.raises(WeightsError, match=r"refers to pathlib\.\w*"):
        read_networks(tmp_path / "a.pkl")


def tensor_call(shape: Any, stride: Any, *, offset: Any = 0) -> bytes:
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.ones(2).untyped_storage(), dtype=torch.float32, _internal=True
    )
    return pickle.dumps({"a": Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, {})})


@pytest.mark.parametrize(
    "data",
    [
        tensor_call((3,), (1,)),
        tensor_call((2,), (2,)),
        tensor_call((2,), (1,), offset=1),
        tensor_call((2,), (1,), offset=-1),
        tensor_call((10**9, 10**9), (0, 0)),
        tensor_call((2**70,), (0,)),
        tensor_call((1,) * 20, (1,) * 20),
        tensor_call((2, 1), (1,)),
        tensor_call("ab", "ab"),
        tensor_call((True,), (1,)),
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        b"\x80\x04B" + struct.pack("<I", 2**31) + b"abc.",
        b"\x80\x04\x8a\xff" + b"\x01" * 10,
        b"\x80\x04" + b"(" * 40_000 + b"t" * 40_000 + b".",
        b"\x80\x04]" + b"]" * 40_000 + b"a" * 40_000 + b".",
        b"\x80\x04)" + b"\x94h\x00\x86" * 200 + b".",
        b"\x80\x04)\x94" + b"".join(b"h%c\x86\x94" % i * 2 for i in range(100)) + b".",
        b"\x80\x04}X\x01\x00\x00\x00a)" + b"2\x86" * 5 + b"s.",
        b"",
        b"\x80",
        b"not a pickle",
        b"PK\x03\x04 nor a zip",
    ],
)
def test_bombs_and_damage_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(WeightsError):
        read_networks(tmp_path / "a.pkl")


def test_hostile_keys_are_not_hashed(tmp_path: Path) -> None:
    """A tuple of tuples of one tuple, 100 deep, would take for ever to be hashed."""
    deeper = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x940" for i in range(100))
    nested = b")\x940" + deeper + b"h\x64"
    for use in (nested + b"0}h\x64K\x01s.", nested + b"0\x8f(h\x64\x90.", nested + b"0(h\x64\x91."):
        (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + use)
        with pytest.raises(WeightsError, match="a tuple as a key"):
            read_networks(tmp_path / "a.pkl")


def test_shared_numbers_cannot_multiply(tmp_path: Path) -> None:
    weight = torch.randn(1000)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({f"w{i}": weight for i in range(50)}))
    with pytest.raises(WeightsError, match="together are larger than the file"):
        read_networks(tmp_path / "a.pkl")


def test_endless_module_trees_are_refused(tmp_path: Path) -> None:
    one = nn.Module()
    one.again = one
    many = nn.Module()
    for _ in range(30):
        parent = nn.Module()
        parent.a, parent.b = many, many
        many = parent
    for module in (one, many):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G": module}))
        with pytest.raises(WeightsError, match="contain each other"):
            read_networks(tmp_path / "a.pkl")


def test_truncated_files(tmp_path: Path) -> None:
    whole = write_pickle(tmp_path / "whole.pkl", {"G_ema": STATE}, tmp_path / "marker").read_bytes()
    for length in range(0, len(whole) - 1, 331):
        (tmp_path / "a.pkl").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"truncated|empty file|neither"):
            read_networks(tmp_path / "a.pkl")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_of_torch_save(tmp_path: Path, zipped: bool) -> None:
    torch.save(STATE, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pt").read_bytes()
    for length in range(0, len(whole) - 1, 331):
        (tmp_path / "a.pt").write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_networks(tmp_path / "a.pt")


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", compression=zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(10_000_000))
    with pytest.raises(WeightsError, match="compressed entries"):
        read_networks(tmp_path / "a.pt")


def test_missing_files(tmp_path: Path) -> None:
    for name in ("no.pkl", "no.safetensors", "."):
        with pytest.raises((WeightsError, OSError)):
            read_networks(tmp_path / name)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("mutants")
    small = {"_xyz": torch.ones(2, 3), "a.b.c.weight": torch.ones(2)}
    files = [
        write_pickle(folder / "a.pkl", {"G_ema": small}, folder / "marker", protocol=p).read_bytes() for p in (2, 4)
    ]
    for zipped in (True, False):
        torch.save(small, folder / "a.pt", _use_new_zipfile_serialization=zipped)
        files.append((folder / "a.pt").read_bytes())
    return folder, files


def read_or_refuse(read: Callable[[Path], Any], path: Path) -> None:
    message = ""
    try:
        read(path)
    except WeightsError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, 3),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3)), max_size=6
    ),
)
def test_mutated_files_are_read_or_refused(
    seeds: tuple[Path, list[bytes]], which: int, changes: list[tuple[float, bytes, int]]
) -> None:
    folder, files = seeds
    data = files[which]
    for place, replacement, removed in changes:
        at = int(place * len(data))
        data = data[:at] + replacement + data[at + removed :]
    (folder / "mutant").write_bytes(data)
    read_or_refuse(read_networks, folder / "mutant")
    assert not (folder / "marker").exists()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=60))
def test_random_pickles_are_read_or_refused(seeds: tuple[Path, list[bytes]], data: bytes) -> None:
    (seeds[0] / "random").write_bytes(b"\x80\x04" + data)
    read_or_refuse(read_object, seeds[0] / "random")
