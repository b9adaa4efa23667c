"""The examples in docstrings run, and the package gives the names that it promises without loading torch."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cgsgan

WITH_EXAMPLES = [name for name in cgsgan.__all__ if name not in ("__version__", "Cameras", "ExportOptions")]


@pytest.mark.parametrize("name", [*WITH_EXAMPLES, "Cameras"])
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestFinder(exclude_empty=True).find(
        getattr(cgsgan, name), name, module=False, globs={"cgsgan": cgsgan, "torch": torch}
    )
    examples = [test for test in found if test.examples]
    assert examples or name not in WITH_EXAMPLES
    told: list[str] = []
    runner = doctest.DocTestRunner()
    for test in examples:
        runner.run(test, out=told.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(told)


def test_importing_the_package_is_light():
    code = "import sys, cgsgan; dir(cgsgan); print({'torch', 'numpy', 'PIL', 'rasterizer'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_names():
    assert {*cgsgan.__all__} <= {*dir(cgsgan)}
    for name in cgsgan.__all__:
        assert getattr(cgsgan, name) is not None
    with pytest.raises(AttributeError, match="'cgsgan' has no attribute 'load_generators'"):
        _ = cgsgan.load_generators
