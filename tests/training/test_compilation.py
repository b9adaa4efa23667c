"""Compiled networks: the same gradients, R1's second derivative among them, and a clear word where nothing compiles."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cgsgan.training.compilation import CompilationError, compile_networks
from tests.tiny_experiment import tiny_config, tiny_steps

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    before = torch._functorch.config.donated_buffer
    yield
    torch._functorch.config.donated_buffer = before
    torch._dynamo.reset()


def test_compiled_gradients_are_those_of_eager_networks(tmp_path: Path):
    command = [sys.executable, str(Path(__file__).with_name("compiled_steps.py")), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    eager, compiled = (load_file(tmp_path / f"{name}.safetensors") for name in ("eager", "compiled"))
    assert eager.pop("graphs") == 0
    assert compiled.pop("graphs") >= 2  # both networks, at least
    assert eager.keys() == compiled.keys()
    for name, gradient in eager.items():
        assert (compiled[name] - gradient).norm() <= 2e-5 * gradient.norm() + 1e-9, name


def test_copies_of_a_compiled_network_are_not_compiled_and_names_stay():
    steps = tiny_steps(tiny_config())
    names = list(steps.generator.state_dict())
    compile_networks([steps.generator], torch.device("cpu"), backend="aot_eager")
    assert list(steps.generator.state_dict()) == names
    assert steps.generator._compiled_call_impl is not None
    assert copy.deepcopy(steps.generator)._compiled_call_impl is None


def test_without_a_compiler_the_message_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found in\n  g++, clang++")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(CompilationError, match=r"No working C\+\+ compiler found .*needs a C\+\+ compiler") as caught:
        compile_networks([], torch.device("cpu"))
    assert "\n" not in str(caught.value)
