"""Who asks: the holder of a key, by its name, or else whoever is at an address."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from mass_serve.server.serving.fair_queue import ORDINARY_PRIORITY, Turn

# As much of an IPv6 address as one customer has to itself, who may call from any of the addresses in it.
IPV6_NETWORK_BITS = 64


@dataclass(frozen=True)
class Caller:
    """Holds what requests have in common that share one part of the server.

    A request that asks for more urgency than `top_priority` is served with that.
    """

    name: str  # "key:<name of the key>" or "address:<IP address or network>"
    key_name: str | None = None
    top_priority: int = ORDINARY_PRIORITY
    share: float = 1.0
    rate: float | None = None  # images, or texts, a second; None: as many as there is room for

    def turn(self, priority: int = ORDINARY_PRIORITY) -> Turn:
        """Returns a request's place in the fair order, at most as urgent as this caller may be."""
        return Turn(self.name, max(priority, self.top_priority), self.share)


UNKNOWN = Caller("address:unknown")
# Whose turn it is where the server does something for itself, or once for all.
ITSELF = Caller("server")


def caller_at(host: str | None) -> Caller:
    """Returns the caller at an address, as a connection's other end is known; all without one are one."""
    if host is None:
        return UNKNOWN
    try:
        address = ipaddress.ip_address(host.partition("%")[0])  # behind it is the name of an interface
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv4Address):
        return Caller(f"address:{address}")
    if address.ipv4_mapped is not None:
        return Caller(f"address:{address.ipv4_mapped}")
    network = ipaddress.ip_network((address, IPV6_NETWORK_BITS), strict=False)
    return Caller(f"address:{network}")
