from __future__ import annotations

import re
from pathlib import Path

import rasterizer
from rasterizer import constants

DECLARATION = re.compile(r"^constexpr (?:int|float|double) (\w+) = ([^;]+);", re.MULTILINE)


def test_constants_equal_those_of_the_compiled_core():
    header = (Path(rasterizer.__path__[0]) / "csrc" / "config.h").read_text()
    declared = dict(DECLARATION.findall(header))
    assert len(declared) == header.count("constexpr ")
    for name, expression in declared.items():
        numerator, _, denominator = expression.rstrip("f").partition("/")
        assert getattr(constants, name) == float(numerator) / float(denominator or 1), name
    python_only = {"DEFAULT_NEAR_PLANE", "INRIA_NEAR_PLANE", "DEFAULT_FAR_PLANE", "DEFAULT_EPS2D"}
    assert {name for name in vars(constants) if name.isupper()} == set(declared) | python_only
