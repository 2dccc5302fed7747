"""Where the engines of a store come from: its newest revision, with the same options every time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mass_serve.engine.engine import Engine
from mass_serve.engine.first_pass import check_first_pass_dtype
from mass_serve.engine.loading import PretrainedReader
from mass_serve.engine.options import EngineOptions
from mass_serve.engine.protocol import ServingEngine
from mass_serve.model_store.next_store import next_url
from mass_serve.model_store.store import Store


@dataclass(frozen=True)
class StoreSource:
    """Loads engines from the newest revision of a store; an `EngineSource`."""

    url: str
    options: EngineOptions
    read_pretrained: PretrainedReader = Store.load_pretrained
    # Images: an engine on a GPU comes ready for batches of up to so many; 0: it gets ready as it answers.
    max_batch: int = 0

    def check_device(self) -> None:
        """Raises ValueError for a device that is absent, or does not compute what first passes are to."""
        check_first_pass_dtype(self.options.torch_device, self.options.first_pass_dtype)

    def revision(self) -> str:
        """The store's revision now. Raises StoreError."""
        return Store.open(self.url, self.options.trusted_keys).manifest.store_revision

    def load(self, without: frozenset[str] = frozenset(), previous: ServingEngine | None = None) -> Engine:
        """Loads an engine of the store as it is now. Raises StoreError and ValueError."""
        # An engine of another kind has no tensors of this store's that could be shared.
        shared = previous if isinstance(previous, Engine) else None
        engine = Engine.open(
            self.url,
            self.options,
            without=without,
            previous=shared,
            read_pretrained=self.read_pretrained,
        )
        if self.max_batch:
            engine.warm_up(self.max_batch)
        return engine

    def next(self) -> StoreSource:
        """The source of the store's next revision, read and shared as the store's own."""
        return replace(self, url=next_url(self.url))
