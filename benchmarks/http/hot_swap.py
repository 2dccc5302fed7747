"""One task's revision exchanged again and again under load: who notices?

The store gets two revisions of one task and a history in which they alternate. Each swap is then what
`mass-serve task rollback` does, called here without the start of an interpreter, which would cost the
server more of two cores than the swap. The server finds the new revision by looking; the next swap comes
when it serves it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.http.figures import errors, latencies, percentile
from benchmarks.http.generator import Plan
from benchmarks.http.load import BATCH, QUEUE, EngineAlone, Results
from benchmarks.http.processes import PATIENCE, Load, Server, running_server
from model_store.manifest import MANIFEST_FILE
from model_store.plan import TaskInput
from model_store.revisions import add_task, rollback_task
from model_store.store import Store

POLL_SECONDS = 0.2


def give_history(store: Path, task: str, checkpoint: Path, swaps: int) -> None:
    """Adds a second revision of a task, and a history that goes back and forth between the two."""
    first = Store.open(store).task(task)
    changed = add_task(store, TaskInput(task, checkpoint), replace=True)
    second = changed.task(task)
    history = tuple((first, second)[(swaps - step) % 2 == 0] for step in range(swaps))
    manifest = changed.manifest.model_copy(update={"history": {task: history}})
    changed.files.write_bytes(MANIFEST_FILE, manifest.to_bytes())


def measure(store: Path, task: str, swaps: int, seconds: float) -> Iterator[Results]:
    """Half load without swaps for so many seconds, then with them for as long as they take."""
    flags = ("--max-batch-images", str(BATCH), "--queue-images", str(QUEUE))
    alone = EngineAlone(store)
    rate = 0.5 * alone.throughput(seconds / 3)
    others = [number for number, name in enumerate(alone.targets) if name not in (None, task)]
    targets = alone.targets
    del alone
    with running_server(store, *flags, "--store-poll-seconds", str(POLL_SECONDS)) as server:
        quiet = Load(Plan(server.port, targets, seconds, rate=rate)).journal()
        yield Results(
            {}, {"quiet_errors": float(errors(quiet)), "quiet_requests": float(len(quiet.statuses))}
        )
        load = Load(Plan(server.port, targets, swaps * PATIENCE, rate=rate))
        took = [swap(server, store, task) for _ in range(swaps)]
        swapped = load.stop()
    before = percentile(latencies(quiet, targets=others), 99)
    during = percentile(latencies(swapped, targets=others), 99)
    raw = {
        "swaps": float(swaps),
        "seconds_to_swap": sum(took) / swaps,
        "requests_during_swaps": float(len(swapped.statuses)),
        "p99_of_other_tasks_without_swaps": before,
        "p99_of_other_tasks_with_swaps": during,
    }
    yield Results(
        {"failed_during_swaps": float(errors(swapped)), "p99_with_over_without_swaps": during / before}, raw
    )


def swap(server: Server, store: Path, task: str) -> float:
    """Exchanges the task's revision; the seconds until the server serves it."""
    started = time.perf_counter()
    revision = rollback_task(store, task).manifest.store_revision
    while server.store_revision() != revision:
        if time.perf_counter() - started > PATIENCE:
            raise TimeoutError("the server did not take the new revision")
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - started
