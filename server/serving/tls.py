"""The certificate and key that every transport shows its callers, kept in files that operators renew.

tls = TlsFiles(cert, key)
context = tls.current.context  # for a new connection
"""

from __future__ import annotations

import os
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from mass_serve.model_store.storage.regular_files import RegularFile
from mass_serve.server.settings import Settings, SettingsError

# How old the knowledge of the files may be.
POLL_SECONDS = 1.0
# What reading the files raises; EOFError where one becomes shorter meanwhile.
UNREADABLE = (OSError, ValueError, EOFError)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Identity:
    """A certificate chain and its private key, both in PEM, and a context with both."""

    chain: bytes
    key: bytes
    context: ssl.SSLContext


class TlsFiles:
    """Reads both files again when one changes. Connections that there are keep what they began with.

    Files that do not fit together, or cannot be read, leave the last certificate in force: one is written
    after the other.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises SettingsError for files that cannot be read, hold no certificate or do not fit."""
        self._cert, self._key = cert, key
        self._lock = threading.Lock()  # gRPC asks on threads of its own
        self._polled = time.monotonic()
        try:
            self._stamps = self._current_stamps()
            self._identity = self._read()
        except UNREADABLE as error:
            raise SettingsError(f"tls_cert {cert} and tls_key {key}: {_reason(error)}") from error

    @classmethod
    def of(cls, settings: Settings) -> TlsFiles | None:
        """Returns those that the settings name, if they do; raises as the constructor does."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key)

    @property
    def current(self) -> Identity:
        """Returns what a new connection is shown."""
        with self._lock:
            if time.monotonic() >= self._polled + POLL_SECONDS:
                self._polled = time.monotonic()
                self._poll()
            return self._identity

    def _poll(self) -> None:
        try:
            stamps = self._current_stamps()
            if stamps != self._stamps:
                self._identity = self._read()
                self._stamps = stamps
                log.info("certificate read", file=str(self._cert))
        except UNREADABLE as error:
            log.error(
                "certificate cannot be read, the last one stays", file=str(self._cert), error=_reason(error)
            )

    def _current_stamps(self) -> list[tuple[int, ...]]:
        states = map(os.stat, (self._cert, self._key))
        return [(state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino) for state in states]

    def _read(self) -> Identity:
        with RegularFile.open(self._cert) as file:
            chain = file.read_text_bytes()
        with RegularFile.open(self._key) as file:
            key, permissions = file.read_text_bytes(), file.permissions
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        with _in_memory(chain) as chain_path, _in_memory(key) as key_path:
            context.load_cert_chain(chain_path, key_path, _refuse_to_ask)
        if permissions & stat.S_IROTH:
            log.warning("others may read the key of TLS; take that right away", file=str(self._key))
        return Identity(chain, key, context)


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Gives bytes a path while the block runs: the library reads only files, and a disk might keep a key."""
    descriptor = os.memfd_create("pem")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _refuse_to_ask() -> str:
    """Stands where the library would ask the terminal for the password of a key, and wait for ever."""
    raise ValueError("the key is encrypted; decrypt it, and let nobody else read the file")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not that of the certificate"
        return "one holds no certificate or no private key in PEM"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
