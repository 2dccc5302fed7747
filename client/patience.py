"""How long a server that is busy is asked again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import httpx

from mass_serve.client.responses import LATER


@dataclass(frozen=True)
class Patience:
    """So many tries of a request, and waits between them of so many seconds together."""

    tries: int = 5
    seconds: float = 60.0

    def after(self, response: httpx.Response) -> tuple[float, Patience] | None:
        """Returns how long to wait before the next try, and the patience left; None to take the response."""
        if response.status_code not in LATER or self.tries <= 1:
            return None
        try:
            wait = float(response.headers["Retry-After"])
        except (KeyError, ValueError):
            return None
        if not 0 <= wait <= self.seconds:
            return None
        return wait, replace(self, tries=self.tries - 1, seconds=self.seconds - wait)
