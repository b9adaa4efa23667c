"""What stands between the network and viser: few connections, small messages, and only those that a control can send.

viser trusts its clients: a message may set any attribute of a control, upload files without bound, or have the server
open a public tunnel. Here every message is read before viser sees it; what is not a known control with a value that
fits it, or a camera, is dropped. Pages of other sites cannot connect at all (cross-site WebSocket hijacking, DNS
rebinding).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cgsgan.viewer.state import Number, RefusedValueError

MOST_CONNECTIONS = 16
LARGEST_MESSAGE = 4096
"""Bytes. A camera takes about 400."""
MESSAGES_PER_SECOND = 240.0
"""Of one connection; viser's page sends at most 50 of a kind. What comes faster waits in its sender."""
BURST = 480.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TRY_AGAIN_LATER, UNSUPPORTED_DATA = 1013, 1003
"""Codes of RFC 6455, section 7.4.1, and its registry."""
CAMERA_VECTORS = {"wxyz": 4, "position": 3, "look_at": 3, "up_direction": 3}
CAMERA_NUMBERS = {
    "fov": Number(1e-3, math.pi, 1),
    "near": Number(1e-6, 1e6, 1),
    "far": Number(1e-6, 1e9, 1),
    "image_height": Number(1, 16384, 1, whole=True),
    "image_width": Number(1, 16384, 1, whole=True),
}
COORDINATE = Number(-1e6, 1e6, 1)


@dataclass
class Gate:
    """The rules, and what came.

    Attributes:
        cleaners: for each control of the page, by its id: what came to what viser may see, or RefusedValueError.
        hosts: names under which the server may be asked for; None allows any.
        open: connections that there are.
        passed: messages that were let through.
        dropped: messages that were not.
        refused: connections that were not opened.
    """

    cleaners: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    hosts: tuple[str, ...] | None = LOOPBACK
    open: set[Any] = field(default_factory=set)
    passed: int = 0
    dropped: int = 0
    refused: int = 0

    def clean(self, raw: bytes | str) -> bytes | None:
        """The message that viser may see instead; None drops it.

        Raises:
            RefusedValueError: for bytes that are no message at all.
        """
        import msgspec

        if isinstance(raw, str):
            raise RefusedValueError("expected bytes")
        try:
            message = msgspec.msgpack.decode(raw, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise RefusedValueError("expected a message") from None
        try:
            if message.get("type") == "GuiUpdateMessage":
                return msgspec.msgpack.encode(self._clean_update(message))
            if message.get("type") == "ViewerCameraMessage":
                return msgspec.msgpack.encode(_clean_camera(message))
        except RefusedValueError:
            pass
        self.dropped += 1
        return None

    def allows(self, host: str | None, origin: str | None) -> bool:
        """Whether a request with these headers comes from a page of this server, or from no page at all."""
        try:
            name = urlsplit(f"//{host}").hostname if host else None
            if self.hosts is not None and name not in self.hosts:
                return False
            return origin is None or urlsplit(origin).netloc == host
        except ValueError:
            return False

    def _clean_update(self, message: dict[str, Any]) -> dict[str, Any]:
        uuid, updates = message.get("uuid"), message.get("updates")
        cleaner = self.cleaners.get(uuid) if isinstance(uuid, str) else None
        if cleaner is None or not isinstance(updates, dict) or set(updates) != {"value"}:
            raise RefusedValueError("expected the value of a control")
        return {"type": "GuiUpdateMessage", "uuid": uuid, "updates": {"value": cleaner(updates["value"])}}


def _clean_camera(message: dict[str, Any]) -> dict[str, Any]:
    cleaned: dict[str, Any] = {"type": "ViewerCameraMessage"}
    for name, length in CAMERA_VECTORS.items():
        vector = message.get(name)
        if not isinstance(vector, list) or len(vector) != length:
            raise RefusedValueError(f"expected {length} numbers")
        cleaned[name] = [float(COORDINATE.clean(part)) for part in vector]
    return cleaned | {name: kind.clean(message.get(name)) for name, kind in CAMERA_NUMBERS.items()}


@contextmanager
def gated(gate: Gate) -> Iterator[None]:
    """The viser server that is made within stands behind the gate.

    viser calls ``websockets.asyncio.server.serve`` and has no option for what is set here, so for a moment that name
    means a serve with our limits.

    Raises:
        RuntimeError: when no server was begun through it: another viser, which would stand unprotected.
    """
    import websockets.asyncio.server as websockets_server

    original, begun = websockets_server.serve, []

    def serve(handler: Callable, *arguments: Any, **options: Any) -> Any:
        begun.append(True)
        options |= {
            "max_size": LARGEST_MESSAGE,
            "process_request": _guarded_request(gate, options.get("process_request")),
            "create_connection": _guarded_connection(gate),
            "logger": _silent_logger(),
        }
        return original(_guarded_handler(gate, handler), *arguments, **options)

    websockets_server.serve = serve  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        websockets_server.serve = original  # type: ignore[misc]
    if not begun:
        raise RuntimeError("viewer: this viser starts its server in a way that is not known here; use viser 1.1")


def _silent_logger() -> logging.Logger:
    """Connections that break off are no news, and what clients sent is nobody's business."""
    logger = logging.getLogger("cgsgan.viewer.connections")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def _guarded_request(gate: Gate, serve_page: Callable | None) -> Callable:
    def process_request(connection: Any, request: Any) -> Any:
        headers = request.headers
        upgrade = headers.get("Upgrade", "").lower() == "websocket"
        # get_all: a header that comes twice is not one that a browser sent.
        hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
        origin = origins[0] if origins else None
        if len(hosts) != 1 or len(origins) > 1 or not gate.allows(hosts[0], origin if upgrade else None):
            gate.refused += 1
            return connection.respond(403, "not for this host\n")
        if not upgrade:
            return None if serve_page is None else serve_page(connection, request)
        if "viser-v" not in headers.get("Sec-WebSocket-Protocol", ""):
            gate.refused += 1
            return connection.respond(400, "no viser client\n")
        if len(gate.open) >= MOST_CONNECTIONS:
            gate.refused += 1
            return connection.respond(503, f"at most {MOST_CONNECTIONS} pages at a time\n")
        return None

    return process_request


def _guarded_handler(gate: Gate, handler: Callable) -> Callable:
    async def handle(connection: Any) -> None:
        if len(gate.open) >= MOST_CONNECTIONS:  # several may have shaken hands at once
            gate.refused += 1
            await connection.close(TRY_AGAIN_LATER, "too many pages")
            return
        gate.open.add(connection)
        try:
            await handler(connection)
        finally:
            gate.open.discard(connection)

    return handle


def _guarded_connection(gate: Gate) -> type:
    from websockets.asyncio.server import ServerConnection

    class GuardedConnection(ServerConnection):
        """Gives viser cleaned messages only, no faster than a page sends them."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._allowance, self._asked = BURST, time.monotonic()

        async def recv(self, decode: bool | None = None) -> Any:
            """The next message that is let through."""
            while True:
                raw = await super().recv(decode)
                await self._wait_for_turn()
                try:
                    cleaned = gate.clean(raw)
                except RefusedValueError:
                    gate.dropped += 1
                    await self.close(UNSUPPORTED_DATA, "not a message")
                    continue  # the next recv raises that the connection is closed
                if cleaned is not None:
                    gate.passed += 1
                    return cleaned

        async def _wait_for_turn(self) -> None:
            now = time.monotonic()
            self._allowance = min(BURST, self._allowance + (now - self._asked) * MESSAGES_PER_SECOND) - 1
            self._asked = now
            # Yields in any case: messages that are there already would otherwise keep the loop from all else.
            await asyncio.sleep(max(0.0, -self._allowance / MESSAGES_PER_SECOND))

    return GuardedConnection
