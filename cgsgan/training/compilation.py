"""``torch.compile`` for both networks, and a clear word where it cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class CompilationError(ValueError):
    """A machine on which nothing can be compiled; one line for the user."""


def compile_networks(
    networks: list[nn.Module], device: torch.device, *, backend: str | Callable[..., Any] = "inductor"
) -> None:
    """Compile the calls of networks, in place; ``network.forward`` stays as it is, and so do copies.

    What is differentiated twice has to go through ``forward``: compiled graphs have no second derivative.

    Args:
        networks: on ``device``.
        device: a small function is compiled for it first.
        backend: of ``torch.compile``.

    Raises:
        CompilationError: when that fails; says what is missing.
    """
    try:
        probe = torch.compile(lambda x: (x * 2 + 1).sin(), backend=backend)
        probe(torch.ones(8, device=device))
    except Exception as error:  # every backend has errors of its own; the cause stands in the message
        reason = " ".join(str(error).split())[:200]
        needed = "triton" if device.type == "cuda" else "a C++ compiler with OpenMP, named by CXX or found as g++"
        raise CompilationError(
            f"training.compile: torch.compile does not work here ({reason}); it needs {needed}; or leave it off"
        ) from None
    from torch._functorch import config as functorch_config

    # A graph is asked twice where both players learn from one judgement (judging.DiscriminatorSteps.judge_for_both);
    # by default a compiled one reuses its buffers while it is asked for the first time.
    functorch_config.donated_buffer = False
    for network in networks:
        network.compile(backend=backend)
