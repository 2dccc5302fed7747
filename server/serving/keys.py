"""Keys that callers present, kept in files that operators change while the server runs."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from mass_serve.model_store.storage.regular_files import RegularFile
from mass_serve.server.errors import NotFoundError, UnauthorizedError, WrongKeyError
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.fair_queue import MOST_URGENT, ORDINARY_PRIORITY
from mass_serve.server.settings import Settings, SettingsError

# How old the knowledge of a key file may be.
POLL_SECONDS = 1.0

# What reading a key file raises; EOFError where it becomes shorter meanwhile.
UNREADABLE = (OSError, ValueError, EOFError)

SANE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SANE_PRIORITY = re.compile(r"[0-9]{1,4}")
SANE_SHARE = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4})?")
SANE_RATE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,4})?")
NO_RATE = "none"

log = structlog.get_logger(__name__)


class KeyLineError(ValueError):
    """A line of a key file is not as it should be; the text names the line, and shows nothing of it."""


@dataclass(frozen=True)
class Key:
    """Holds what one line of a key file says."""

    digest: bytes
    caller: Caller


class KeyFile:
    """One ASCII key a line, and behind it what its callers may do: `name=team-a priority=1 share=2 rate=50`.

    Empty lines and lines that start with # are no keys. The file is read again when it changes. One that
    cannot be read any more leaves the last keys in force: a mistake must neither lock everybody out nor let
    anybody in. An empty file has no keys, and refuses everybody.
    """

    def __init__(self, path: Path) -> None:
        """Raises SettingsError for a file that cannot be read, is malformed or holds no key."""
        self._path = path
        self._polled = time.monotonic()
        try:
            self._stamp = self._current_stamp()
            self._callers = self._read()
        except UNREADABLE as error:
            raise SettingsError(f"the key file {path} cannot be read: {_reason(error)}") from error
        if not self._callers:
            raise SettingsError(f"the key file {path} holds no key: write one a line")

    def find(self, key: str) -> Caller | None:
        """Returns who calls with this key, None where it is not the file's.

        Keys are looked up by their hashes: how long that takes tells nothing of a key.
        """
        self._poll()
        return self._callers.get(_digest(key))

    def _poll(self) -> None:
        """Reads the file again if it has changed, at most once in POLL_SECONDS."""
        now = time.monotonic()
        if now < self._polled + POLL_SECONDS:
            return
        self._polled = now
        try:
            stamp = self._current_stamp()
            if stamp != self._stamp:
                self._callers = self._read()
                self._stamp = stamp
                log.info("keys read", file=str(self._path), keys=len(self._callers))
        except UNREADABLE as error:
            log.error(
                "key file cannot be read, the last keys stay", file=str(self._path), error=_reason(error)
            )

    def _current_stamp(self) -> tuple[int, ...]:
        """Differs when the file does; st_ctime tells it of tools that set the other time back."""
        status = os.stat(self._path)
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _read(self) -> dict[bytes, Caller]:
        """Returns the caller of each key, by the key's hash."""
        with RegularFile.open(self._path) as file:
            content, permissions = file.read_text_bytes(), file.permissions
        keys = parse_keys(content.decode("utf-8-sig"))
        if permissions & stat.S_IROTH:
            log.warning("others may read the key file; take that right away from them", file=str(self._path))
        return {key.digest: key.caller for key in keys}


def parse_keys(text: str) -> list[Key]:
    """Reads the lines of a key file. Raises KeyLineError, or UnicodeEncodeError for one that is not ASCII."""
    keys: list[Key] = []
    digests: set[bytes] = set()
    names: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.strip().startswith("#"):
            line.encode("ascii")  # clients differ in how they send anything else
            key = _parse_line(line, f"line {number}")
            if key.digest in digests:
                raise KeyLineError(f"line {number}: this key is there already; write each key once")
            if key.caller.name in names:
                raise KeyLineError(f"line {number}: another key has this name; give each a name of its own")
            keys.append(key)
            digests.add(key.digest)
            names.add(key.caller.name)
    return keys


def _parse_line(line: str, where: str) -> Key:
    secret, *attributes = line.split()
    digest = _digest(secret)
    values = {"name": f"key-{digest.hex()[:8]}", "priority": str(ORDINARY_PRIORITY)}
    values |= {"share": "1", "rate": NO_RATE}
    given: set[str] = set()
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        # Nothing of the line is shown: it may be a key with a blank in it.
        if name not in values or name in given:
            raise KeyLineError(
                f"{where}: behind a key there may be name=..., priority=..., share=... and rate=...,"
                " each once"
            )
        given.add(name)
        values[name] = value
    return Key(digest, _caller(values, where))


def _caller(values: dict[str, str], where: str) -> Caller:
    name, priority, share, rate = (values[name] for name in ("name", "priority", "share", "rate"))
    if not SANE_NAME.fullmatch(name):
        raise KeyLineError(f"{where}: a name has 1 to 64 of the characters A-Z, a-z, 0-9, dot, _ and -")
    if not SANE_PRIORITY.fullmatch(priority) or int(priority) < MOST_URGENT:
        raise KeyLineError(f"{where}: priority must be a whole number of 1 (the most urgent) to 9999")
    if not SANE_SHARE.fullmatch(share) or float(share) == 0:
        raise KeyLineError(f"{where}: share must be a number above 0 and below 10000, such as 2 or 0.5")
    if rate == NO_RATE:
        return Caller(f"key:{name}", name, int(priority), float(share))
    if not SANE_RATE.fullmatch(rate) or float(rate) == 0:
        raise KeyLineError(f"{where}: rate must be a number above 0 and below 1000000, such as 50 or 0.5")
    return Caller(f"key:{name}", name, int(priority), float(share), float(rate))


class Access:
    """Who may do what. Inference is open to all unless it has a key file; an admin key opens it too."""

    def __init__(self, settings: Settings) -> None:
        self._inference = _key_file(settings.inference_keys_file)
        self._admin = _key_file(settings.admin_keys_file)

    @property
    def repository_is_open(self) -> bool:
        """Tells whether there is any key with which tasks may be loaded and unloaded."""
        return self._admin is not None

    def require_inference(self, keys: Sequence[str]) -> Caller | None:
        """Returns who presents these keys; None for somebody without one, where none is needed.

        Raises UnauthorizedError unless one of the keys is for inference or an admin's, where one is needed.
        """
        caller = _find(keys, self._inference, self._admin)
        if self._inference is not None and caller is None:
            raise (WrongKeyError if keys else UnauthorizedError)(
                "A key is needed; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
            )
        return caller

    def require_admin(self, keys: Sequence[str]) -> Caller:
        """Returns which admin presents these keys.

        Raises UnauthorizedError without an admin key, NotFoundError where there are none at all.
        """
        if self._admin is None:
            raise NotFoundError("The repository is closed here; it opens with the setting admin_keys_file.")
        caller = _find(keys, self._admin)
        if caller is None:
            guessed = keys and _find(keys, self._inference) is None
            raise (WrongKeyError if guessed else UnauthorizedError)(
                "An admin key is needed; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
            )
        return caller


def _find(keys: Sequence[str], *files: KeyFile | None) -> Caller | None:
    callers = [file.find(key) for file in files if file is not None for key in keys]
    return next((caller for caller in callers if caller is not None), None)


def _key_file(path: Path | None) -> KeyFile | None:
    return None if path is None else KeyFile(path)


def _digest(key: str) -> bytes:
    """Hashes a key; nobody can say how near to a right one a wrong one's hash is."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, KeyLineError | EOFError):
        return str(error)
    return "it has a key that is not ASCII" if isinstance(error, UnicodeEncodeError) else "it is not UTF-8"
