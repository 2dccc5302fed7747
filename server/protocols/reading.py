"""Bodies made into requests: images and a little JSON at once, others on a thread, much JSON outside first.

What takes longer would hold the event loop up, and a full server must refuse at once: so never on a decoding
thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mass_serve.server.protocols.bodies import is_form, is_json, is_large_json
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.settings import Settings

R = TypeVar("R")

# The worst JSON of that length takes a millisecond; the way to a thread and back takes a tenth of it, and
# the interpreter's lock.
JSON_BYTES_AT_ONCE = 1 << 12
# The same of JSON that is a few long strings, such as one image in base64: 2 us for each 1000 bytes.
FLAT_JSON_BYTES_AT_ONCE = 1 << 17
MOST_VALUES_AT_ONCE = 64


def limits_of(settings: Settings) -> Limits:
    """Returns what one request may ask for by the settings."""
    return Limits(settings.max_images_per_request, settings.max_top_k, settings.max_text_characters)


async def request_of(
    body: bytes,
    content_type: str,
    service: Service,
    context: RequestContext,
    *,
    read: Callable[[bytes], R],
    outside: str,
    of_frame: Callable[[bytearray], R],
) -> R:
    """Returns what `read` makes of a body.

    Of large JSON the function named by `outside` makes a frame in a worker process, and `of_frame` a request
    of that. Raises what these do, and what `Parsers.run_outside` and `Service.hold` raise.
    """
    if _is_read_at_once(body, content_type):
        return read(body)
    turn, parsers = context.caller.turn(), service.parsers
    if not is_large_json(body, content_type):
        return await parsers.run(turn, len(body), read, body)
    most_values = b"%d" % limits_of(service.settings).most_values
    frame = await parsers.run_outside(outside, body, most_values, turn)
    service.hold(len(frame), context)
    return await parsers.run(turn, len(frame), of_frame, frame)


def _is_read_at_once(body: bytes, content_type: str) -> bool:
    """Tells whether a body is an image file by itself, or little JSON."""
    if is_form(body, content_type):
        return False
    if len(body) <= JSON_BYTES_AT_ONCE or (len(body) <= FLAT_JSON_BYTES_AT_ONCE and _has_few_values(body)):
        return True
    # What is said to be JSON may be parsed as that although it is none.
    return "json" not in content_type.lower() and not is_json(body, content_type)


def _has_few_values(body: bytes) -> bool:
    """Tells whether JSON is a few strings and numbers, however long; commas in strings count too."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") <= MOST_VALUES_AT_ONCE
