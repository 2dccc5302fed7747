"""A real server process around the fake engine: `python -m tests.server.fake_server LOAD_SECONDS`.

Settings come from MASS_ variables. The first line of the log tells the address. While there is a file of the
name in FAKE_STORE_HANGS, reads of the store hang. With FAKE_READS_TEXTS the store is one of texts. While
there is a file of the name in FAKE_NEXT_HANGS, the store has a next revision that hangs on every batch.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from mass_serve.engine import ServingEngine
from mass_serve.server.fronts.listening import listen_together
from mass_serve.server.fronts.serving import prepared
from mass_serve.server.operation.logs import configure_logs
from mass_serve.server.settings import load_settings
from tests.server.fakes import FakeEngine, words


@dataclass(frozen=True)
class FakeSource:
    """The fake engine, after some seconds of work."""

    seconds: float
    hangs_while: Path | None = None  # there is this file
    reads_texts: bool = False
    next_hangs_while: Path | None = None  # there is this file

    def revision(self) -> str:
        while self.hangs_while is not None and self.hangs_while.exists():
            time.sleep(0.05)
        return "fake-1"

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> FakeEngine:  # noqa: ARG002 - the fake is always the same
        """Works as a real load does: inside torch, which does not like to be stopped there."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            torch.linalg.svd(torch.randn(600, 600))
        return FakeEngine(tokenizer=words() if self.reads_texts else None)

    def next(self) -> FakeNext:
        """The source of the engine that hangs."""
        return FakeNext(self)


@dataclass(frozen=True)
class FakeNext:
    """What the store may become: an engine that never answers."""

    store: FakeSource

    def revision(self) -> str:
        hangs = self.store.next_hangs_while
        return self.store.revision() if hangs is None or not hangs.exists() else "fake-2"

    def load(self, without: frozenset[str], previous: ServingEngine | None) -> FakeEngine:  # noqa: ARG002 - the fake is always the same
        return FakeEngine(gate=threading.Event(), store_revision="fake-2")

    def next(self) -> FakeNext:
        return self


def main() -> int:
    """Serves until stopped."""
    hangs = os.environ.get("FAKE_STORE_HANGS")
    reads_texts = "FAKE_READS_TEXTS" in os.environ
    next_hangs = os.environ.get("FAKE_NEXT_HANGS")
    source = FakeSource(
        float(sys.argv[1]),
        Path(hangs) if hangs else None,
        reads_texts,
        Path(next_hangs) if next_hangs else None,
    )
    settings = load_settings({})
    configure_logs(settings)
    listeners = listen_together(settings.host, settings.port, settings.front_ends)
    structlog.get_logger(__name__).error("listening", url=f"http://127.0.0.1:{listeners[0].getsockname()[1]}")
    return prepared(settings, source)(listeners)


if __name__ == "__main__":
    sys.exit(main())
