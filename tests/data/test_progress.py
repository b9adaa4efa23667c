"""Progress where nobody watches a bar."""

from __future__ import annotations

import pytest

from cgsgan.data.progress import progress_bar


def test_a_pipe_gets_a_line_at_every_tenth(capsys: pytest.CaptureFixture[str]):
    with progress_bar() as progress:
        for done in range(1, 41):
            progress("making heads", done, 40)
        progress("decoding", 3, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [*(f"making heads: {4 * tenth}/40" for tenth in range(1, 11)), "decoding: 3/3"]
