"""A client that speaks viser's protocol by hand and means no good."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import viser
from websockets.sync.client import ClientConnection, connect

PROTOCOL = f"viser-v{viser.__version__}"
GARBAGE: list[bytes | str] = [
    b"",
    b"\x00",
    b"\xff" * 64,
    b"\x91" * 4000,  # lists in lists
    b"\xdf\xff\xff\xff\xff",  # a map of 4 billion entries
    b"\xc6\xff\xff\xff\xff",  # 4 GB of bytes
    msgspec.msgpack.encode([1, 2, 3]),
    msgspec.msgpack.encode("text"),
    "text",
]
BAD_VALUES: list[Any] = [
    math.nan, math.inf, -math.inf, 1e300, -1e300, 2**63, -(2**63), -1, 0.5, True, None, "", "x" * 3000,
    "../../etc/passwd", [], [math.nan] * 3, [1e300] * 3, [-1, 999, 3.7], [[[[]]]], {}, {"value": 1}, b"\x00" * 100,
]  # fmt: skip


@contextmanager
def open_client(port: int, **options: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{port}/", subprotocols=[PROTOCOL], max_size=None, **options) as client:  # type: ignore[list-item]
        yield client


def update(uuid: Any, updates: Any) -> bytes:
    return msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": uuid, "updates": updates})


def camera(**fields: Any) -> bytes:
    message = {
        "type": "ViewerCameraMessage",
        "wxyz": [0.0, 1.0, 0.0, 0.0],
        "position": [0.0, 0.0, 2.7],
        "fov": 0.23,
        "near": 0.01,
        "far": 1000.0,
        "image_height": 400,
        "image_width": 600,
        "look_at": [0.0, 0.0, 0.0],
        "up_direction": [0.0, 1.0, 0.0],
    }
    return msgspec.msgpack.encode(message | fields)


def bad_cameras() -> list[bytes]:
    found = []
    for field in ("wxyz", "position", "look_at", "up_direction"):
        length = 4 if field == "wxyz" else 3
        found += [camera(**{field: [value] * length}) for value in (math.nan, math.inf, 1e300, 0.0, "1")]
        found += [camera(**{field: value}) for value in ([], None, "abc", [0.0] * 99, {"x": 1})]
    for field in ("fov", "near", "far", "image_height", "image_width"):
        found += [camera(**{field: value}) for value in (math.nan, -1, 0, 1e300, None, "1", [])]
    return [*found, camera(extra=1), msgspec.msgpack.encode({"type": "ViewerCameraMessage"})]


def forbidden(uuid: str) -> list[bytes]:
    """Messages that viser would obey."""
    messages: list[dict[str, Any]] = [
        {"type": "ShareUrlRequest"},  # would open a public tunnel
        {"type": "ShareUrlDisconnect"},
        {"type": "GuiUpdateMessage", "uuid": uuid, "updates": {"update_cb": []}},
        {"type": "GuiUpdateMessage", "uuid": uuid, "updates": {"removed": True}},
        {"type": "GuiUpdateMessage", "uuid": uuid, "updates": {"value": 1, "uuid": "x"}},
        {"type": "GuiUpdateMessage", "uuid": ["x"], "updates": {"value": 1}},
        {
            "type": "FileTransferStartUpload",
            "source_component_uuid": uuid,
            "transfer_uuid": "t",
            "filename": "../../evil",
            "mime_type": "x",
            "part_count": 9,
            "size_bytes": 1 << 40,
        },
        {
            "type": "FileTransferPart",
            "source_component_uuid": uuid,
            "transfer_uuid": "t",
            "part_index": 0,
            "content": bytes(2000),
        },
        {"type": "GuiFormDirtyMessage", "uuid": uuid},
        {"type": "GuiButtonHoldMessage", "uuid": uuid, "frequency": 1.0},
        {"type": "RunJavascriptMessage", "source": "alert(1)"},
        {"type": "Message"},
        {"type": "__class__"},
        {},
    ]
    return [msgspec.msgpack.encode(message) for message in messages]
