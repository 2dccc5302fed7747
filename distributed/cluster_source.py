"""Engines of a store for the replicas of a cluster: one loads at a time, and a node has the encoder once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
import structlog
import torch
from ray.exceptions import RayError
from torch import Tensor

from mass_serve.distributed.board import board
from mass_serve.distributed.turns import LEASE_SECONDS
from mass_serve.distributed.weights import as_tensors
from mass_serve.engine import Engine, EngineOptions, ServingEngine, StoreSource
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.file_names import PRETRAINED_FILE
from mass_serve.model_store.store import Store

ASK_SECONDS = 0.5
# Nobody waits longer for what another process does: then a replica does it itself.
BOARD_SECONDS = 120.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ClusterSource:
    """Loads as `StoreSource` does, in turn with the other replicas; an `EngineSource`."""

    own: StoreSource
    replica: str

    @classmethod
    def of(cls, own: StoreSource, replica: str) -> ClusterSource:
        """Makes a source of a plain one."""
        weights = SharedWeights(own.url, own.options)
        return cls(replace(own, read_pretrained=weights.read), replica)

    def revision(self) -> str:
        """The store's revision now. Raises StoreError."""
        return self.own.revision()

    def load(self, without: frozenset[str] = frozenset(), previous: ServingEngine | None = None) -> Engine:
        """Loads an engine; one that replaces another waits for its turn. Raises StoreError and ValueError."""
        if previous is None:  # nobody is served yet: replicas that start need not wait for each other
            return self.own.load(without)
        with _turn(self.replica):
            return self.own.load(without, previous)

    def next(self) -> ClusterSource:
        """The source of the store's next revision, whose loads have turns of their own."""
        return replace(self, own=self.own.next(), replica=f"{self.replica} next")


@contextmanager
def _turn(replica: str) -> Iterator[None]:
    """Waits for the turn and keeps it meanwhile."""
    over = threading.Event()
    while not _has_turn(replica) and not over.wait(ASK_SECONDS):
        pass
    keeping = threading.Thread(target=_keep_turn, args=(replica, over), name="turn", daemon=True)
    keeping.start()
    try:
        yield
    finally:
        over.set()
        keeping.join()
        _asked("give_turn_back", replica)


def _has_turn(replica: str) -> bool:
    taken = _asked("take_turn", replica)
    return taken is None or bool(taken)  # without a board nobody is waited for


def _keep_turn(replica: str, over: threading.Event) -> None:
    while not over.wait(LEASE_SECONDS / 5):
        _has_turn(replica)


def _asked(method: str, *given: object) -> Any:
    """What the board answers; None where there is none."""
    try:
        return ray.get(getattr(board(), method).remote(*given), timeout=BOARD_SECONDS)
    except (RayError, ValueError) as error:
        if isinstance(cause := getattr(error, "cause", None), StoreError):
            raise cause from error
        log.warning("the board does not answer", asked=method, error=str(error).partition("\n")[0])
        return None


@dataclass(frozen=True)
class SharedWeights:
    """Reads the pretrained weights as a view of the node's one copy of them."""

    url: str
    options: EngineOptions

    def read(self, store: Store) -> dict[str, Tensor]:
        """Returns the weights in the engine's dtype, or reads the file where the board does not have them.

        Those of whole numbers are quantised from the file, and each replica has its own. Raises StoreError.
        """
        options, digest = self.options, store.manifest.files[PRETRAINED_FILE]
        if options.torch_dtype == torch.int8:
            return store.load_pretrained()
        dtype = str(options.torch_dtype).removeprefix("torch.")
        found = _asked("weights", self.url, options.trusted_keys, digest, dtype)
        try:
            return as_tensors(ray.get(found[0])) if found else store.load_pretrained()
        except RayError as error:  # the board has died since, and with it what it had put there
            log.warning("the encoder is read anew", error=str(error).partition("\n")[0])
            return store.load_pretrained()
