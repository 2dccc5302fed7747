"""A new revision is loaded, and its graphs captured, while another thread answers on the same device.

The device is a recorder (`tests.recorded_cuda`), which forbids to wait, in any thread, while a graph is
captured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mass_serve.engine import EngineOptions, Query, StoreSource
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, rollback_task
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving import served_store
from mass_serve.server.serving.admission import Ledger, Ledgers
from mass_serve.server.serving.batcher import Batcher
from mass_serve.server.serving.fair_queue import ORDINARY_PRIORITY, Turn
from mass_serve.server.serving.served_store import ServedStore
from tests.models import Suite
from tests.recorded_cuda import RecordedCuda, recorded_cuda
from tests.server_processes import PATIENCE, wait_for

MAX_BATCH = 4


class Serving:
    """A served store and its batcher on one device, and a client that asks all the time."""

    def __init__(self, store: Path) -> None:
        metrics = Metrics({})
        source = StoreSource(str(store), EngineOptions(device="cuda:0"), max_batch=MAX_BATCH)
        self.store = ServedStore(source, metrics, poll_seconds=0, load_timeout=PATIENCE)
        self.batcher = Batcher(
            metrics,
            Ledgers(Ledger(64), Ledger(64, unit="tokens")),
            max_batch_images=MAX_BATCH,
            max_batch_tokens=64,
            max_batch_seconds=PATIENCE,
        )
        self.store.start()
        wait_for(lambda: self.store.engine is not None)
        self.revisions: set[str] = set()
        self._stopping = threading.Event()
        self._client = threading.Thread(target=self._ask)

    def __enter__(self) -> Serving:
        self._client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._client.join()

    def close(self) -> None:
        self.store.close()
        assert self.batcher.close(PATIENCE)

    def _ask(self) -> None:
        """Sends requests of every size that a batch has, until a failure or the end."""
        size = 0
        while not self._stopping.is_set():
            size = size % MAX_BATCH + 1
            engine = self.store.engine
            assert engine is not None
            crop = engine.preprocessing.crop
            images = [Query(torch.zeros(3, crop, crop, dtype=torch.uint8)) for _ in range(size)]
            turn = Turn("client", ORDINARY_PRIORITY)
            ticket = self.batcher.admit(engine, size, time.monotonic() + PATIENCE, turn)
            self.batcher.submit(ticket, images)
            assert len(ticket.future.result(PATIENCE)) == size
            self.revisions.add(engine.store_revision)
            time.sleep(0.002)  # the loading thread needs the interpreter, too


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedCuda]:
    # What the recorder computes would keep a thread of the least priority from its turn for minutes.
    monkeypatch.setattr(served_store, "stand_back", lambda: None)
    with recorded_cuda() as cuda:
        yield cuda


def test_nothing_waits_while_a_graph_is_captured_and_none_is_captured_in_traffic(
    cuda: RecordedCuda, store: Path, suite: Suite
) -> None:
    serving = Serving(store)
    with serving:
        add_task(store, TaskInput("street", suite.tasks[2].checkpoint), replace=True)
        serving.store.reload().result(PATIENCE)
        rollback_task(store, "street")
        serving.store.reload().result(PATIENCE)
        revisions = len(serving.revisions)
    serving.close()
    assert cuda.forbidden == []
    assert revisions > 1
    assert set(cuda.capturers) == {"load"}
