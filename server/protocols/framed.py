"""A small head in JSON and bytes behind it: how a worker process answers with what it made of a large body.

    options, files = unframed_files(framed_files({"top_k": 5}, [first, second]))

The head comes from a process that callers' bytes have passed through, so it is read as JSON and nothing else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

HEAD = struct.Struct("<Q")  # bytes of the JSON


def framed(head: Mapping[str, Any], parts: Sequence[bytes]) -> bytes:
    """Returns the length of the head, the head, and the parts one behind the other."""
    # Escapes would make three times as much of a text as it was in the body.
    text = json.dumps(head, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return b"".join([HEAD.pack(len(text)), text, *parts])


def head_bytes(frame: bytearray) -> int:
    """Returns the length of the head, which begins behind HEAD."""
    (length,) = HEAD.unpack_from(frame)
    return int(length)


def framed_files(options: Mapping[str, Any], files: Sequence[bytes]) -> bytes:
    """Returns options and files as one."""
    return framed({"options": options, "sizes": [len(data) for data in files]}, files)


def unframed_files(frame: bytearray) -> tuple[dict[str, Any], list[bytes]]:
    """Returns the options and the files of `framed_files`."""
    start = HEAD.size + head_bytes(frame)
    head = json.loads(frame[HEAD.size : start].decode("utf-8", "surrogatepass"))
    files = []
    for size in head["sizes"]:
        files.append(bytes(memoryview(frame)[start : start + size]))
        start += size
    return head["options"], files
