"""Who goes where more connections are open than may be: one of the address that has most.

crowd.enter(address, connection)
if (one := crowd.one_too_many()) is not None: ...
crowd.begins(connection)  # is answered a request
crowd.ends(connection)  # waits for the next one
crowd.leave(connection)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

G = TypeVar("G", bound=Hashable)


class Crowd(Generic[G]):
    """Keeps the open connections in the order in which they would go.

    A flood asks who goes for each of its connections, so that nothing is sorted for the answer; only those of
    other addresses that stand before it are passed over.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, int] = {}  # connections of each address
        # Connections with their addresses. Not `dict`, whose first item lies behind all that were deleted.
        self._waiting: OrderedDict[G, str] = OrderedDict()  # for a request, whoever does longest first
        self._answered: OrderedDict[G, str] = OrderedDict()  # the latest request's last

    def enter(self, address: str, guest: G) -> None:
        """Counts a connection, which waits for its first request."""
        self._held[address] = self._held.get(address, 0) + 1
        self._waiting[guest] = address

    def begins(self, guest: G) -> None:
        """Notes that a connection is answered a request."""
        if guest in self._waiting:
            self._answered[guest] = self._waiting.pop(guest)

    def ends(self, guest: G) -> None:
        """Notes that a connection waits for its next request."""
        if guest in self._answered:
            self._waiting[guest] = self._answered.pop(guest)

    def leave(self, guest: G) -> None:
        """Counts a connection no more; it may have left before."""
        address = self._waiting.pop(guest, None) or self._answered.pop(guest, None)
        if address is not None:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]

    def one_too_many(self) -> G | None:
        """Returns the connection that has to go, if one has to, of the addresses that have most.

        That is the one that has waited for a request for longest, and where all are answered that of the
        latest request.
        """
        if len(self._waiting) + len(self._answered) <= self._most:
            return None
        largest = max(self._held.values())
        for guest, address in self._waiting.items():
            if self._held[address] == largest:
                return guest
        return next(guest for guest, of in reversed(self._answered.items()) if self._held[of] == largest)
