"""Where engines come from: the newest revision of a store, with the same options every time."""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.engine.engine import Engine
from mass_serve.engine.options import EngineOptions
from mass_serve.model_store.store import Store


@dataclass(frozen=True)
class StoreSource:
    """Engines from the newest revision of a store."""

    url: str
    options: EngineOptions

    def revision(self) -> str:
        """The store's revision now. Raises StoreError."""
        return Store.open(self.url).manifest.store_revision

    def load(self, without: frozenset[str] = frozenset(), previous: Engine | None = None) -> Engine:
        """An engine of the store as it is now. Raises StoreError and ValueError."""
        return Engine.open(self.url, self.options, without=without, previous=previous)
