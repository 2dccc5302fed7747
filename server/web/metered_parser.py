"""The parser of HTTP/1.1, a few events at a time, and with the limits that it lacks.

h11 takes 25 us for an event, and a chunk of one byte is an event of six bytes: what is read from a connection
at once may hold 40,000 of them. It also parses any number of header lines that come in one piece.
"""

from __future__ import annotations

import re

import h11

# Of the headers of a request, or of a chunk's line and extensions.
LONGEST_HEAD_BYTES = 32 << 10
MOST_HEADER_LINES = 256
LONGEST_TARGET_BYTES = 8 << 10
# Of those that may follow a chunked body.
MOST_TRAILER_LINES = 64
# What the parser is given at once: it looks at its limit only where a head has not ended, and parses all
# lines of a trailer in one go, which are these bytes at most.
HEAD_PIECE_BYTES = 16 << 10
CHUNKED_PIECE_BYTES = 4 << 10
# A chunked body may have so many chunks of any size; with more, they hold so many bytes on average.
FREE_CHUNKS = 1024
SMALLEST_MEAN_CHUNK_BYTES = 64

_END_OF_HEAD = re.compile(rb"\n\r?\n")

Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


class RefusedError(Exception):
    """A request exceeds a limit that is not HTTP's own; the text is one sentence for the caller."""

    reason = "bad_request"


class SmallChunksError(RefusedError):
    """A body comes in too many chunks for its size."""

    reason = "small_chunks"


class MeteredParser(h11.Connection):
    """Gives at most `allowance` events, then none until it has a new one; `held_back` says that it did so."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, LONGEST_HEAD_BYTES)
        self.held_back = False
        self._allowance = 0
        self._unread = bytearray()
        self._head = b""  # of an answer that has begun
        self._chunked = False
        self._chunks = 0
        self._chunk_bytes = 0

    def allow(self, events: int) -> None:
        """Lets it give so many events from now on."""
        self._allowance = events
        self.held_back = False

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        """Returns what is to be written; the head of an answer comes with what follows it, in one write."""
        written = super().send(event)
        if isinstance(event, h11.Response):
            self._head = written or b""
            return b""
        if self._head and written is not None:
            written, self._head = self._head + written, b""
        return written

    def receive_data(self, data: bytes) -> None:
        """Keeps what came until events are asked for."""
        self._unread += data

    def next_event(self) -> Event:
        """Returns the next event, or NEED_DATA where there is none or the allowance is used up.

        Raises RemoteProtocolError for what is not HTTP, and RefusedError for what exceeds a limit.
        """
        if not self._allowance:
            self.held_back = True
            return h11.NEED_DATA
        self._allowance -= 1
        event = self._parsed()
        if isinstance(event, h11.Request):
            _check_request(event)
            self._chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
            self._chunks = self._chunk_bytes = 0
        elif isinstance(event, h11.Data) and self._chunked:
            self._count_chunk(event)
        return event

    def _parsed(self) -> Event:
        """Hands the parser piece after piece until it has an event."""
        self._check_head()
        event = super().next_event()
        while event is h11.NEED_DATA and self._unread:
            size = self._piece()
            super().receive_data(bytes(self._unread[:size]))
            del self._unread[:size]
            self._check_head()
            event = super().next_event()
            if event is h11.NEED_DATA and self._chunked:
                self._check_trailer()
        return event

    def _piece(self) -> int:
        if self.their_state is h11.IDLE:
            return HEAD_PIECE_BYTES
        return CHUNKED_PIECE_BYTES if self._chunked else len(self._unread)

    def _check_head(self) -> None:
        """Refuses a head of too many lines before it is parsed line by line."""
        if self.their_state is not h11.IDLE:
            return
        waiting, _ = self.trailing_data
        end = _END_OF_HEAD.search(waiting)
        if end and waiting.count(b"\n", 0, end.start()) > MOST_HEADER_LINES:
            raise RefusedError(f"The request has more than {MOST_HEADER_LINES} header lines; send fewer.")

    def _check_trailer(self) -> None:
        """Refuses many lines behind a body; before it no whole line is left unparsed."""
        waiting, _ = self.trailing_data
        if self.their_state is h11.SEND_BODY and waiting.count(b"\n") > MOST_TRAILER_LINES:
            raise RefusedError(f"More than {MOST_TRAILER_LINES} header lines follow the body; send fewer.")

    def _count_chunk(self, part: h11.Data) -> None:
        """Counts whole chunks, and not the segments that a slow sender's network cuts them into."""
        self._chunk_bytes += len(part.data)
        self._chunks += part.chunk_end
        too_many = self._chunks > FREE_CHUNKS
        if too_many and self._chunk_bytes < SMALLEST_MEAN_CHUNK_BYTES * self._chunks:
            raise SmallChunksError(
                f"The body's chunks have fewer than {SMALLEST_MEAN_CHUNK_BYTES} bytes on average; send larger"
                " ones, or the body's length."
            )


def _check_request(request: h11.Request) -> None:
    """Refuses endless paths, and requests whose end two readers could see in different places."""
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1"):
        raise RefusedError("The request says its body's length in two ways; send one of them.")
    if len(request.target) > LONGEST_TARGET_BYTES:
        raise RefusedError(f"The request's path has more than {LONGEST_TARGET_BYTES} bytes; shorten it.")
