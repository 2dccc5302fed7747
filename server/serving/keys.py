"""Keys that callers present, kept in files that operators change while the server runs."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from mass_serve.server.errors import NotFoundError, UnauthorizedError
from mass_serve.server.settings import Settings, SettingsError

# How old the knowledge of a key file may be.
POLL_SECONDS = 1.0

log = structlog.get_logger(__name__)


class KeyFile:
    """One ASCII key a line; empty lines and lines that start with # are none. Re-read when the file changes.

    A file that cannot be read any more leaves the last keys in force: a mistake must neither lock everybody
    out nor let anybody in. An empty file has no keys, and refuses everybody.
    """

    def __init__(self, path: Path) -> None:
        """Raises SettingsError for a file that cannot be read or holds no key."""
        self._path = path
        self._polled = time.monotonic()
        try:
            self._stamp = self._current_stamp()
            self._digests = self._read()
        except (OSError, UnicodeError) as error:
            raise SettingsError(f"the key file {path} cannot be read: {_reason(error)}") from error
        if not self._digests:
            raise SettingsError(f"the key file {path} holds no key: write one a line")

    def accepts(self, key: str) -> bool:
        """Tells whether the key is one of the file's; takes the same time whichever it is."""
        self._poll()
        digest = _digest(key)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found

    def _poll(self) -> None:
        """Reads the file again if it has changed, at most once in POLL_SECONDS."""
        now = time.monotonic()
        if now < self._polled + POLL_SECONDS:
            return
        self._polled = now
        try:
            stamp = self._current_stamp()
            if stamp != self._stamp:
                self._digests = self._read()
                self._stamp = stamp
                log.info("keys read", file=str(self._path), keys=len(self._digests))
        except (OSError, UnicodeError) as error:
            log.error(
                "key file cannot be read, the last keys stay", file=str(self._path), error=_reason(error)
            )

    def _current_stamp(self) -> tuple[int, ...]:
        """Differs when the file does; st_ctime tells it of tools that set the other time back."""
        status = os.stat(self._path)
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _read(self) -> list[bytes]:
        lines = [line.strip() for line in self._path.read_text(encoding="utf-8-sig").splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        "".join(keys).encode("ascii")  # clients differ in how they send anything else
        return [_digest(key) for key in keys]


class Access:
    """Who may do what. Inference is open to all unless it has a key file; an admin key opens it too."""

    def __init__(self, settings: Settings) -> None:
        self._inference = _key_file(settings.inference_keys_file)
        self._admin = _key_file(settings.admin_keys_file)

    @property
    def repository_is_open(self) -> bool:
        """Tells whether there is any key with which tasks may be loaded and unloaded."""
        return self._admin is not None

    def require_inference(self, keys: Sequence[str]) -> None:
        """Raises UnauthorizedError unless one of the caller's keys is for inference or an admin's."""
        files = [file for file in (self._inference, self._admin) if file is not None]
        if self._inference is not None and not any(file.accepts(key) for file in files for key in keys):
            raise UnauthorizedError(
                "A key is needed; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
            )

    def require_admin(self, keys: Sequence[str]) -> None:
        """Raises UnauthorizedError without an admin key, NotFoundError where there are none at all."""
        if self._admin is None:
            raise NotFoundError("The repository is closed here; it opens with the setting admin_keys_file.")
        if not any(self._admin.accepts(key) for key in keys):
            raise UnauthorizedError(
                "An admin key is needed; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
            )


def _key_file(path: Path | None) -> KeyFile | None:
    return None if path is None else KeyFile(path)


def _digest(key: str) -> bytes:
    """Hashes a key to one length, so that comparing tells nothing of a key's."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it has a key that is not ASCII" if isinstance(error, UnicodeEncodeError) else "it is not UTF-8"
