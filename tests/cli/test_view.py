"""`cgsgan view`: what it says, what it refuses, how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cgsgan.cli import main

pytest.importorskip("viser")


def default_interrupt() -> None:
    """What a terminal's child has; that of a shell's background job ignores interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_when_asked(tmp_path: Path, number: signal.Signals):
    command = [sys.executable, "-m", "cgsgan", "view", "--port", "0", "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_interrupt,  # noqa: PLW1509  (one system call, no lock)
    ) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.fullmatch(r"explorer: http://localhost:(\d+)\n", first)
        assert found, first
        assert f"ssh -L {found[1]}:localhost:{found[1]}" in process.stdout.readline()
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=60):
            pass
        process.send_signal(number)
        out, errors = process.communicate()
        watchdog.cancel()
    assert process.returncode == 0
    assert "stopped" in out
    assert errors == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port: expected 0 to 65535, got 70000"),
        (["--host", "203.0.113.9", "--port", "0"], "cannot listen on 203.0.113.9 port 0"),
        (["--most-pixels", "9000"], "--most-pixels: expected 64 to 8192"),
        (["--most-mb", "0"], "--most-mb: expected 1 to"),
        (["--out", __file__], "is a file"),
        (["no/such/run"], "no/such/run"),
        (["--device", "warp"], "--device warp"),
    ],
)
def test_mistakes_give_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["view", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
