"""The one actor that the replicas of a deployment share: turns, metrics, and the encoder's weights.

Serve starts it before them, starts it anew if it dies, and ends it with the deployment. Nothing in it is
needed to answer a request: where it is away, replicas load by themselves and metrics are their own.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve

from mass_serve.distributed.expositions import Expositions
from mass_serve.distributed.turns import Turns
from mass_serve.distributed.weights import as_arrays
from mass_serve.model_store.format.file_names import PRETRAINED_FILE
from mass_serve.model_store.store import Store

NAME = "board"


class Board:
    """Holds what replicas tell each other."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._expositions = Expositions()
        self._reading = asyncio.Lock()
        # The newest encoder's: those that map an older one keep it.
        self._weights: tuple[tuple[str, str], ray.ObjectRef[Any]] | None = None

    async def take_turn(self, replica: str) -> bool:
        """Returns whether it is a replica's turn to load."""
        return self._turns.take(replica)

    async def give_turn_back(self, replica: str) -> None:
        """Lets the next one load."""
        self._turns.give_back(replica)

    async def exchange(self, replica: str, exposition: str) -> dict[str, str]:
        """Notes what a replica counts, and returns what all of them do."""
        self._expositions.tell(replica, exposition)
        return self._expositions.current

    async def leave(self, replica: str) -> None:
        """Forgets a replica that ends."""
        self._turns.give_back(replica)
        self._expositions.forget(replica)

    async def weights(
        self, url: str, trusted_keys: Path | None, digest: str, dtype: str
    ) -> list[ray.ObjectRef[Any]]:
        """Returns a reference to the encoder's weights in a dtype; none if the store has others by now.

        Raises StoreError.
        """
        async with self._reading:
            if self._weights is None or self._weights[0] != (digest, dtype):
                reference = await asyncio.to_thread(_put, url, trusted_keys, digest, getattr(torch, dtype))
                if reference is None:
                    return []
                self._weights = (digest, dtype), reference
            # Within a list it travels as a reference; by itself Ray would send what it refers to.
            return [self._weights[1]]


def board() -> Any:
    """Returns the handle of this replica's board: never kept, as the board may have been started anew.

    Raises ValueError while there is none.
    """
    return serve.get_deployment_actor(NAME)


def _put(url: str, trusted_keys: Path | None, digest: str, dtype: torch.dtype) -> ray.ObjectRef[Any] | None:
    store = Store.open(url, trusted_keys)
    if store.manifest.files[PRETRAINED_FILE] != digest:
        return None
    return ray.put(as_arrays({name: tensor.to(dtype) for name, tensor in store.load_pretrained().items()}))
