from __future__ import annotations

import pytest

from cgsgan.export.formats import FORMATS, write_splats
from tests.export.round_trips import random_scene


@pytest.fixture(scope="session")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three splats in every format, by the ending of its files."""
    folder = tmp_path_factory.mktemp("good")
    for suffix in FORMATS:
        write_splats(folder / f"good{suffix}", random_scene(3))
    return {suffix: (folder / f"good{suffix}").read_bytes() for suffix in FORMATS}
