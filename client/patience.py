"""How long a server that is busy is asked again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import httpx

from mass_serve.client.responses import LATER, is_of_proxy

# A proxy has another server, or a new one soon.
PROXY_SECONDS = 0.5


@dataclass(frozen=True)
class Patience:
    """So many tries of a request, and waits between them of so many seconds together."""

    tries: int = 5
    seconds: float = 60.0

    def after(self, response: httpx.Response) -> tuple[float, Patience] | None:
        """Returns how long to wait before the next try, and the patience left; None to take the response."""
        wait = PROXY_SECONDS if is_of_proxy(response) else _told_wait(response)
        if wait is None or self.tries <= 1 or not 0 <= wait <= self.seconds:
            return None
        return wait, replace(self, tries=self.tries - 1, seconds=self.seconds - wait)


def _told_wait(response: httpx.Response) -> float | None:
    """Returns the seconds after which a server says that it may answer."""
    if response.status_code not in LATER:
        return None
    try:
        return float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
