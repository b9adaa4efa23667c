"""Compilers that some tests need: absent ones skip the tests, except where the environment says they must be there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_without(tool: str, reason: str) -> NoReturn:
    """Skip the test for want of ``tool``, or fail it where ``RASTERIZER_REQUIRE_<TOOL>=1``."""
    variable = f"RASTERIZER_REQUIRE_{tool.upper()}"
    if os.environ.get(variable) == "1":
        pytest.fail(f"{variable}=1, but {reason}")
    pytest.skip(reason)
