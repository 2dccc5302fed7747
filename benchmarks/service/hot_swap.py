"""One task's revision exchanged again and again under load: who notices?

The store gets two revisions of one task and a history in which they alternate. Each swap is then what
`mass-serve task rollback` does, called here without the start of an interpreter, which would cost the
server more of two cores than the swap. The server finds the new revision by polling; the next swap comes
when it serves it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.service.figures import TOO_MANY, errors, latencies, percentile, throughput
from benchmarks.service.generator import Plan
from benchmarks.service.load import BATCH, QUEUE, Results
from benchmarks.service.processes import PATIENCE, Load, Server, running_server
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, rollback_task
from mass_serve.model_store.store import Store

POLL_SECONDS = 0.2


def give_history(store: Path, task: str, checkpoint: Path, swaps: int) -> None:
    """Adds a second revision of a task, and a history that goes back and forth between the two."""
    first = Store.open(store).task(task)
    changed = add_task(store, TaskInput(task, checkpoint), replace=True)
    second = changed.task(task)
    history = tuple((first, second)[(swaps - step) % 2 == 0] for step in range(swaps))
    manifest = changed.manifest.model_copy(update={"history": {task: history}})
    changed.files.write_bytes(MANIFEST_FILE, manifest.to_bytes())


def measure(store: Path, task: str, swaps: int, seconds: float, pause: float) -> Iterator[Results]:
    """Half load without swaps for so many seconds, then with a swap and a pause in turn."""
    targets: list[str | None] = [None, *(entry.name for entry in Store.open(store).manifest.tasks)]
    others = [number for number, name in enumerate(targets) if name not in (None, task)]
    flags = ("--max-batch-images", str(BATCH), "--queue-images", str(QUEUE))
    with running_server(store, *flags, "--store-poll-seconds", str(POLL_SECONDS)) as server:
        saturated = Load(Plan(server.port, targets, seconds, clients=2 * BATCH)).journal()
        rate = 0.5 * throughput(saturated, seconds / 4)
        quiet = Load(Plan(server.port, targets, seconds, rate=rate)).journal()
        load = Load(Plan(server.port, targets, swaps * (pause + PATIENCE), rate=rate))
        took = [swap(server, store, task, pause) for _ in range(swaps)]
        swapped = load.stop()
    before = percentile(latencies(quiet, targets=others), 99)
    during = percentile(latencies(swapped, targets=others), 99)
    ratios = {"failed_during_swaps": float(errors(swapped)), "p99_with_over_without_swaps": during / before}
    raw = {
        "swaps": float(swaps),
        "seconds_to_swap": sum(took) / swaps,
        "half_load_rate": rate,
        "failed_without_swaps": float(errors(quiet)),
        "requests_without_swaps": float(len(quiet.statuses)),
        "requests_during_swaps": float(len(swapped.statuses)),
        "refused_during_swaps": float(swapped.statuses.count(TOO_MANY)),
        "p99_of_other_tasks_without_swaps": before,
        "p99_of_other_tasks_with_swaps": during,
    }
    yield Results(ratios, raw)


def swap(server: Server, store: Path, task: str, pause: float) -> float:
    """Exchanges the task's revision; the seconds until the server serves it."""
    started = time.perf_counter()
    revision = rollback_task(store, task).manifest.store_revision
    while server.store_revision() != revision:
        if time.perf_counter() - started > PATIENCE:
            raise TimeoutError("the server did not take the new revision")
        time.sleep(POLL_SECONDS)
    took = time.perf_counter() - started
    time.sleep(pause)
    return took
