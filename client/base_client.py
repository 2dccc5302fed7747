"""What a client is made of, whether its methods are awaited or not.

The methods themselves stand in both clients: Python has no type for "the same, but to be awaited".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import httpx

from mass_serve.client.asking import Asker
from mass_serve.client.exchanges import Exchanges
from mass_serve.client.patience import Patience

H = TypeVar("H", httpx.Client, httpx.AsyncClient)


class BaseClient(ABC, Generic[H]):
    """Belongs to one server; `Client` says what the parameters are."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout: float = 60.0,
        tries: int = 5,
        patience: float = 60.0,
        batch_size: int = 32,
        http: H | None = None,
    ) -> None:
        """Raises ValueError for a key that cannot be one."""
        self._exchanges = Exchanges(Asker(url, key, Patience(tries, patience)), batch_size)
        self._http: H = self._connecting(timeout) if http is None else http

    @staticmethod
    @abstractmethod
    def _connecting(timeout: float) -> H:
        """Returns what makes the connections."""
