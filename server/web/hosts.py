"""The names that callers may call this server by, so that no page of another name can be made to speak to it.

hosts = AllowedHosts.of(settings)
hosts.allow("localhost:8000")
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from mass_serve.server.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY = "*"


class AllowedHosts:
    """Compares names without their case, port, brackets and last dot; `*.example.com` is all below it."""

    def __init__(self, names: Iterable[str]) -> None:
        plain = {_plain(name) for name in names}
        self._any = ANY in plain
        self._names = {name for name in plain if not name.startswith("*.")}
        self._endings = tuple(name[1:] for name in plain if name.startswith("*."))

    @classmethod
    def of(cls, settings: Settings) -> AllowedHosts:
        """Returns those that the settings name: by default loopback names and what the server listens on."""
        if settings.allowed_hosts is not None:
            return cls(settings.allowed_hosts)
        return cls([ANY]) if _is_wildcard(settings.host) else cls([*LOOPBACK, settings.host])

    def allow(self, authority: str) -> bool:
        """Tells whether a name, perhaps with a port, is this server's."""
        name = _plain(_without_port(authority))
        return self._any or name in self._names or name.endswith(self._endings)

    def refused(self, scope: Scope) -> str | None:
        """Returns the name in a request that is not this server's, if there is one; HTTP/1.0 needs none."""
        named = Headers(scope=scope).getlist("host")
        target = scope.get("raw_path", b"").decode("latin-1")
        if "://" in target and not target.startswith("/"):
            named.append(_authority(target))
        return next((name for name in named if not self.allow(name)), None)


def _is_wildcard(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _authority(target: str) -> str:
    try:
        return urlsplit(target).netloc.rpartition("@")[2]
    except ValueError:
        return target


def _without_port(authority: str) -> str:
    name, colon, port = authority.rpartition(":")
    return name if colon and port.isdecimal() and (":" not in name or name.endswith("]")) else authority


def _plain(name: str) -> str:
    return name.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")
