"""Logs to standard error, as JSON for machines or in colour for people; libraries' logs come out alike."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from mass_serve.model_store.storage.files import without_credentials
from mass_serve.server.operation.tracing import add_trace
from mass_serve.server.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Sets up the process's logging; called once, by a command."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        *([add_trace] if settings.tracing else []),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [
        structlog.processors.format_exc_info,
        _hide_credentials,
        *_renderers(settings.log_format),
    ]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # Not by way of the standard library's loggers: the record that they make of a line takes as long as all
    # else about it, and a request has a line.
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # uvicorn reports each start and stop of its own; this service does so itself.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # It warns of each malformed form: callers, who are told of theirs, could fill the log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


class _Lines:
    """Writes lines to standard error, and goes on where nobody reads them any more."""

    def __init__(self, *_: object) -> None:
        """Takes what `structlog.get_logger` was called with: the name of a module, which no line tells."""
        self._file = sys.stderr

    def msg(self, line: str) -> None:
        """Writes a line in one piece, which those of other threads cannot cut."""
        with suppress(OSError, ValueError):  # the latter says that the file is closed
            self._file.write(line + "\n")
            self._file.flush()

    debug = info = warning = error = critical = msg


def _hide_credentials(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Removes credentials from every text: a store's URL may hold some, and so may any error about it."""
    return {
        key: without_credentials(value) if isinstance(value, str) else value for key, value in event.items()
    }


def _renderers(log_format: str) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.JSONRenderer()]
    # The renderer's own tracebacks show local variables, and with them headers and keys.
    plain = structlog.dev.plain_traceback
    return [
        _escape_controls,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain),
    ]


def _escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escapes what a terminal would obey: callers choose paths, and an image's file may say anything."""
    return {
        key: _traceback(value) if key == "exception" else _harmless(value) for key, value in event.items()
    }


def _harmless(value: object) -> object:
    """Returns text with escapes for what is not printable; anything else too, where its repr has such."""
    text = value if isinstance(value, str) else repr(value)
    return value if text.isprintable() else "".join(map(_printable, text))


def _traceback(text: str) -> str:
    """Keeps the lines of a traceback, further in than any line of the log begins."""
    return "\n".join("  " + "".join(map(_printable, line)) for line in text.split("\n"))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
