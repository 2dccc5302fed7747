"""From settings to a source of engines, for the commands that need one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import torch

from model_store.store import Store
from server.engine import Engine
from server.settings import Settings, SettingsError


@dataclass(frozen=True)
class StoreSource:
    """Engines from the newest revision of a store."""

    url: str
    device: str
    dtype: str
    execution: str
    mode: str | None  # None: the store's
    set_cache_bytes: int

    def revision(self) -> str:
        """The store's revision now. Raises StoreError."""
        return Store.open(self.url).manifest.store_revision

    def load(self, without: frozenset[str] = frozenset(), previous: Engine | None = None) -> Engine:
        """An engine as the settings want it. Raises StoreError and ValueError."""
        return Engine.load(
            self.url,
            device=self.device,
            dtype=self.dtype,
            execution=self.execution,
            mode=self.mode,
            set_cache_bytes=self.set_cache_bytes,
            without=without,
            previous=previous,
        )


def store_source(settings: Settings) -> StoreSource:
    """The source that the settings describe. Raises SettingsError for a device that is absent."""
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    return StoreSource(
        settings.store or str(files("server").joinpath("demo_store")),
        _device(settings.device),
        settings.dtype,
        settings.execution,
        settings.mode,
        settings.set_cache_bytes,
    )


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: cuda was asked for, and torch sees no CUDA device here; use cpu or auto")
    return wanted
