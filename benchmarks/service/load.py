"""Throughput, latency and refusals of one server, against the engine alone in the same run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

from benchmarks.http_overhead import photographs
from benchmarks.service.figures import OK, TOO_MANY, errors, fairness, latencies, percentile, throughput
from benchmarks.service.generator import PICTURES, Journal, Plan
from benchmarks.service.processes import Load, running_server
from mass_serve.engine import Engine, Query
from mass_serve.inputs.images import ImageLimits, decode_image

BATCH = 32
QUEUE = 256
CLIENTS = (1, 8, 32, 64, 128)


@dataclass(frozen=True)
class Results:
    """Ratios with aims, and the figures behind them."""

    ratios: dict[str, float]
    raw: dict[str, float]


class EngineAlone:
    """The same mix of pictures and tasks in full batches, with nothing around it."""

    def __init__(self, store: Path) -> None:
        self._engine = Engine.load(str(store), dtype="float32")
        self.targets: list[str | None] = [None, *self._engine.tasks]
        preprocess = self._engine.preprocessing.preprocess
        pixels = [preprocess(decode_image(data, ImageLimits(10**8))) for data in photographs(PICTURES)]
        targets = len(self.targets)
        queries = []
        for n in range(math.lcm(PICTURES * targets, BATCH)):
            target = self.targets[n % targets]
            queries.append(Query(pixels[n // targets % PICTURES], None if target is None else (target,)))
        self._batches = cycle([queries[n : n + BATCH] for n in range(0, len(queries), BATCH)])
        self._engine.classify_batch(next(self._batches))

    def throughput(self, seconds: float) -> float:
        """Images a second, over about so long and whole rounds of the mix."""
        done = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            for batch in islice(self._batches, len(self.targets)):
                self._engine.classify_batch(batch)
            done += BATCH * len(self.targets)
        return done / (time.perf_counter() - started)


class Measurement:
    """All phases on one store."""

    def __init__(self, store: Path, seconds: float, rounds: int) -> None:
        self._store = store
        self._seconds = seconds
        self._rounds = rounds
        self._alone = EngineAlone(store)
        self._generator_share: list[float] = []

    def run(self) -> Iterator[Results]:
        """Everything, in the order of the phases."""
        flags = ("--max-batch-images", str(BATCH), "--queue-images", str(QUEUE))
        with running_server(self._store, *flags) as server:
            self._plan = Plan(server.port, self._alone.targets, self._seconds)
            clients, ramp = self._ramp()
            yield Results({}, ramp)
            saturated = self._against_the_engine(clients)
            yield saturated
            capacity = saturated.raw["throughput"]
            yield self._half_load(0.5 * capacity)
            yield self._high_load(0.8 * capacity)
            yield self._overload(3.0 * capacity, capacity)
        yield Results({}, {"generator_share_of_a_core": max(self._generator_share)})

    def _perform(self, **changes: float | int) -> Journal:
        journal = Load(replace(self._plan, **changes)).journal()  # type: ignore[arg-type]
        self._generator_share.append(journal.cpu_seconds / journal.wall_seconds)
        return journal

    def _ramp(self) -> tuple[int, dict[str, float]]:
        """More and more clients; the number that got the most, and what each got."""
        reached = {}
        for clients in CLIENTS:
            seconds = self._seconds / 3
            reached[clients] = throughput(self._perform(clients=clients, seconds=seconds), seconds / 4)
        best = max(reached, key=lambda clients: reached[clients])
        return best, {f"throughput_of_{clients}_clients": value for clients, value in reached.items()}

    def _against_the_engine(self, clients: int) -> Results:
        """Saturated server and engine alone in turn, so that a noisy machine disturbs both alike."""
        served, alone = [], []
        for _ in range(self._rounds):
            alone.append(self._alone.throughput(self._seconds / 3))
            served.append(throughput(self._perform(clients=clients), self._seconds / 6))
        ratios = [here / there for here, there in zip(served, alone, strict=True)]
        raw = {
            "clients_at_saturation": float(clients),
            "throughput": statistics.median(served),
            "engine_throughput": statistics.median(alone),
            "throughput_vs_engine_lowest": min(ratios),
            "throughput_vs_engine_highest": max(ratios),
        }
        return Results({"throughput_vs_engine": statistics.median(ratios)}, raw)

    def _half_load(self, rate: float) -> Results:
        found = latencies(self._perform(rate=rate))
        p50, p99 = percentile(found, 50), percentile(found, 99)
        raw = {"half_load_p50": p50, "half_load_p99": p99, "half_load_requests": float(len(found))}
        return Results({"p99_over_p50_half_load": p99 / p50}, raw)

    def _high_load(self, rate: float) -> Results:
        journal = self._perform(rate=rate)
        found = latencies(journal)
        ratios = {
            "errors_at_80_percent": float(errors(journal)),
            "fairness_between_tasks": fairness(journal),
        }
        raw = {
            "high_load_p50": percentile(found, 50),
            "high_load_p99": percentile(found, 99),
            "high_load_requests": float(len(journal.statuses)),
        }
        return Results(ratios, raw)

    def _overload(self, rate: float, capacity: float) -> Results:
        """What is ahead of an accepted request is at most a full queue and the batch on the device."""
        journal = self._perform(rate=rate)
        accepted, refused = latencies(journal), latencies(journal, TOO_MANY)
        bound = (QUEUE + BATCH) / capacity
        p99 = percentile(accepted, 99)
        ratios = {
            "accepted_p99_over_bound_at_300_percent": p99 / bound,
            "rejection_p99_seconds": percentile(refused, 99),
        }
        raw = {
            "overload_bound_seconds": bound,
            "overload_accepted_p99": p99,
            "overload_accepted": float(len(accepted)),
            "overload_refused": float(len(refused)),
            "overload_otherwise": float(sum(s not in (OK, TOO_MANY) for s in journal.statuses)),
            "rejection_p50_seconds": percentile(refused, 50),
        }
        return Results(ratios, raw)
