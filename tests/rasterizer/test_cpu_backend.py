"""Finding and loading the compiled core, and the messages when that fails."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rasterizer
from rasterizer import backend


def test_core_is_available():
    assert backend.available_backends()[:2] == ("reference", "cpu")
    assert ("cuda" in backend.available_backends()) is torch.cuda.is_available()
    assert backend.load_library() is backend.load_library()
    assert "baseline" in backend.available_isas()


def test_missing_core_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend, "search_folders", lambda: [tmp_path])
    with pytest.raises(backend.BackendError, match=r"pip install \."):
        backend.find_library()
    backend.load_library.cache_clear()
    assert backend.available_backends() == ("reference",)
    monkeypatch.undo()
    assert backend.available_backends()[:2] == ("reference", "cpu")


def test_broken_core_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "librasterizer_cpu.so").write_bytes(b"no library")
    monkeypatch.setattr(backend, "search_folders", lambda: [tmp_path])
    backend.load_library.cache_clear()
    with pytest.raises(backend.BackendError, match="cannot be used"):
        backend.load_library()
    monkeypatch.undo()
    backend.load_library.cache_clear()


def test_core_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend, "ABI_VERSION", backend.ABI_VERSION + 1)
    backend.load_library.cache_clear()
    with pytest.raises(backend.BackendError, match="left over"):
        backend.load_library()
    monkeypatch.undo()
    backend.load_library.cache_clear()


def test_struct_mirrors_the_header():
    header = (Path(rasterizer.__path__[0]) / "csrc" / "params.h").read_text()
    body = header[header.index("typedef struct RzParams {") : header.index("} RzParams;")]
    names = re.findall(r"(\w+);", re.sub(r"//.*", "", body))
    assert names == [name for name, *_ in backend.Params._fields_]
    assert re.search(r"#define RZ_ABI_VERSION (\d+)", header)[1] == str(backend.ABI_VERSION)  # type: ignore[index]


def test_core_reports_bad_arguments():
    library = backend.load_library()
    params = backend.Params(batch=1, views=1, gaussians=1, channels=3, width=0, height=4, threads=1)
    assert library.rz_view_bytes(ctypes.byref(params)) == -1
    assert library.rz_plan(ctypes.byref(params)) == 1
    with pytest.raises(backend.BackendError, match="out of range"):
        backend.check(1)


def test_unknown_instruction_set():
    with pytest.raises(backend.BackendError, match="baseline"):
        backend.select_isa("mmx")


@pytest.mark.parametrize("isa", backend.available_isas())
def test_environment_selects_the_instruction_set(isa: str):
    code = "from rasterizer import backend; print(backend.load_library().rz_isa().decode())"
    root = Path(__file__).parents[2]
    environment = {**os.environ, backend.ISA_VARIABLE: isa}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=root
    )
    assert result.stdout.strip() == isa
