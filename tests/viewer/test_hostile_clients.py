"""The explorer under clients that send what no page would, many at a time."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("viser")  # brings websockets

from websockets.exceptions import ConnectionClosedError, InvalidStatus

from cgsgan.generators import load_generator
from cgsgan.viewer.controls import element_id
from cgsgan.viewer.gate import LARGEST_MESSAGE, MOST_CONNECTIONS, Gate, gated
from cgsgan.viewer.heads import Heads
from cgsgan.viewer.saving import OutputFolder
from cgsgan.viewer.scene import Explorer
from cgsgan.viewer.server import Viewer, ViewerOptions
from cgsgan.viewer.state import kinds
from tests.viewer import hostile

PATIENCE = 120.0
"""Seconds; a busy machine takes some."""


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    explorer = Explorer(Heads(load_generator()), most_pixels=64)
    folder = OutputFolder(tmp_path / "out", most_bytes=1 << 20, most_files=3, interval=0.05)
    viewer = Viewer(explorer, ViewerOptions(port=0, folder=folder))
    try:
        yield viewer
    finally:
        viewer.stop()


def wait_until(holds, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.02)


def get(viewer: Viewer, path: str = "/", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=PATIENCE)
    connection.request("GET", path, headers={"Accept-Encoding": "identity", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read()


def assert_answers(viewer: Viewer) -> None:
    """A page is served, and a control that moves reaches the picture."""
    assert get(viewer)[0] == 200
    seed = viewer.state.seed + 1
    before = viewer.explorer.made["picture"]
    with hostile.open_client(viewer.port) as client:
        client.send(hostile.camera())
        client.send(hostile.update(element_id(viewer.panel.handles["seed"]), {"value": seed}))
        wait_until(lambda: viewer.state.seed == seed, "the seed")
        wait_until(lambda: viewer.explorer.made["picture"] > before and viewer.worker.idle, "its picture")


def assert_sound(viewer: Viewer) -> None:
    """The state, and what viser holds and gives to other pages, is what controls can have."""
    for name, kind in kinds(viewer.explorer.limits).items():
        value = viewer.panel.handles[name].value
        assert kind.clean(value) == value, name
        assert kind.clean(viewer.state.value(name)) == viewer.state.value(name), name


def test_bad_values_for_every_control(viewer: Viewer, tmp_path: Path):
    with hostile.open_client(viewer.port) as client:
        client.send(hostile.camera())
        for message in hostile.bad_cameras():
            client.send(message)
        for handle in (*viewer.panel.handles.values(), *viewer.panel.buttons.values()):
            for value in hostile.BAD_VALUES:
                client.send(hostile.update(element_id(handle), {"value": value}))
        for message in hostile.forbidden(element_id(viewer.panel.handles["seed"])):
            client.send(message)
        client.send(hostile.update("no-such-element", {"value": 1}))
        client.send(hostile.update(element_id(viewer.panel.handles["psi"]), {"value": 0.625}))
        wait_until(lambda: viewer.state.psi == 0.625, "the last message")
    assert viewer.gate.dropped > 100
    assert viewer.server._share_tunnel is None
    assert not viewer.server.gui._current_file_upload_states
    wait_until(lambda: viewer.worker.idle, "all work")
    assert_sound(viewer)
    assert_answers(viewer)
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert len(written) <= 4  # the folder, and at most three files
    assert all(name == "out" or name.startswith(("out/picture-", "out/head-", "out/turn-")) for name in written)


def test_garbage_closes_its_own_connection(viewer: Viewer):
    for raw in (*hostile.GARBAGE, bytes(LARGEST_MESSAGE + 1)):
        with hostile.open_client(viewer.port) as client:
            client.send(raw)
            with pytest.raises(ConnectionClosedError):
                collections.deque(client, maxlen=0)  # all that is sent until the end
    assert_answers(viewer)


def test_twenty_connections_in_memory_that_does_not_grow(viewer: Viewer):
    process = psutil.Process()
    with contextlib.ExitStack() as pages:
        # None of them reads what it is sent, so none takes leave as it should.
        opened = (hostile.open_client(viewer.port, close_timeout=0.1) for _ in range(MOST_CONNECTIONS))
        clients = [pages.enter_context(client) for client in opened]
        for _ in range(20 - MOST_CONNECTIONS):
            with pytest.raises(InvalidStatus, match="503"), hostile.open_client(viewer.port):
                pass
        assert len(viewer.gate.open) == MOST_CONNECTIONS
        before = 0
        yaw = element_id(viewer.panel.handles["yaw"])
        for round_ in range(4):
            for number, client in enumerate(clients):
                for step in range(2):
                    client.send(hostile.update(yaw, {"value": round_ * 9.0 + number / 4 + step / 32}))
                    client.send(hostile.camera(position=[0.1 * step, 0.1 * number, 2.7]))
            sent = (round_ + 1) * len(clients) * 4
            wait_until(lambda sent=sent: viewer.gate.passed == sent and viewer.worker.idle, "the round")
            if round_ == 1:  # pages are met, buffers have their size
                before = process.memory_info().rss
        assert process.memory_info().rss - before < 48 << 20  # observed 0.4 MB
        assert len(viewer.server._websock_server.get_message_buffer().message_from_id) < 300  # observed 59
    wait_until(lambda: not viewer.gate.open, "all gone")
    assert_answers(viewer)
    assert_sound(viewer)


def test_pages_of_other_sites_are_refused(viewer: Viewer):
    own = f"127.0.0.1:{viewer.port}"
    assert get(viewer, "/", Host="evil.example")[0] == 403  # its name may have been pointed here
    assert get(viewer, "/../../../../etc/passwd")[0] == 404
    assert get(viewer, "/%2e%2e/%2e%2e/_viser.py")[0] == 404
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://["):
        with pytest.raises(InvalidStatus, match="403"), hostile.open_client(viewer.port, origin=origin):
            pass
    with hostile.open_client(viewer.port, origin=f"http://{own}"):
        pass


def test_clients_of_another_protocol_are_refused(viewer: Viewer, capfd: pytest.CaptureFixture[str]):
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus, match="400"), connect(f"ws://127.0.0.1:{viewer.port}/"):
        pass
    assert "Traceback" not in capfd.readouterr().err


def test_hosts_by_name():
    gate = Gate()
    assert gate.allows("localhost:8080", "http://localhost:8080")
    assert gate.allows("[::1]:8080", None)
    assert not gate.allows(None, None)
    assert not gate.allows("localhost.evil.example", None)
    assert not gate.allows("localhost:8080", "http://localhost:9090")
    assert Gate(hosts=None).allows("192.168.0.7:8080", "http://192.168.0.7:8080")
    assert not Gate(hosts=None).allows("192.168.0.7:8080", "http://evil.example")


def test_an_unknown_viser_does_not_stand_unprotected():
    with pytest.raises(RuntimeError, match="not known here"), gated(Gate()):
        pass


def test_fast_senders_wait():
    """1000 messages at once take as long as the allowance says."""
    from cgsgan.viewer import gate as rules

    connection_type = rules._guarded_connection(Gate())
    connection = connection_type.__new__(connection_type)
    connection._allowance, connection._asked = rules.BURST, time.monotonic()
    slept = []

    async def spend() -> None:
        original = asyncio.sleep

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            await original(0)

        rules.asyncio.sleep = sleep  # type: ignore[assignment]
        try:
            for _ in range(1000):
                await connection._wait_for_turn()
        finally:
            rules.asyncio.sleep = original  # type: ignore[assignment]

    asyncio.run(spend())
    assert slept[100] == 0
    assert slept[-1] == pytest.approx((1000 - rules.BURST) / rules.MESSAGES_PER_SECOND, rel=0.2)
