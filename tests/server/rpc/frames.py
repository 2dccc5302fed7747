"""HTTP/2 by hand, for what no client of gRPC would do."""

from __future__ import annotations

import socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0x0, 0x1, 0x4
END_STREAM, END_HEADERS = 0x1, 0x4
INITIAL_WINDOW_SIZE = 0x4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(**values: str) -> bytes:
    """A block of headers without compression; `__` in a name stands for a colon, `_` for a dash."""
    block = b""
    for name, value in values.items():
        plain = name.replace("__", ":").replace("_", "-").encode()
        text = value.encode()
        assert max(len(plain), len(text)) < 127
        block += b"\x00" + bytes([len(plain)]) + plain + bytes([len(text)]) + text
    return block


def call_headers(method: str) -> bytes:
    """What a call of a method begins with."""
    path = f"/inference.GRPCInferenceService/{method}"
    pseudo = {"__method": "POST", "__scheme": "http", "__path": path, "__authority": "server"}
    return headers(**pseudo, te="trailers", content_type="application/grpc")


def connect(address: str, window: int | None = None) -> socket.socket:
    """A connection that has said so much of itself that calls may follow."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    settings = b"" if window is None else INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window.to_bytes(4, "big")
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
    return connection


def message(content: bytes, length: int | None = None) -> bytes:
    """A message as gRPC sends it, or the beginning of a longer one."""
    return b"\x00" + (len(content) if length is None else length).to_bytes(4, "big") + content
