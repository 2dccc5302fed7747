"""Workers on a Ray cluster as what a job's rows come from: portions out, rows back, in any order.

    rows = Workers(settings, count=8, revision=revision).rows
    run_job_by(rows, job, ...)  # the journal, the listing and the parts are those of any job

Ray Data would read, batch and write by itself. It keeps no journal, so a job could not go on where it was
killed without a doubled row, nor have its parts in the order of the inputs. So the job stays what it is, on
the machine that runs the command, and only the answering is sent away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from mass_serve.distributed.cluster import reason
from mass_serve.distributed.share import resources
from mass_serve.distributed.worker import PORTIONS_AT_ONCE, Worker
from mass_serve.jobs import Job, JobError, JobInput, Result, Stream
from mass_serve.jobs.ahead import Ahead
from mass_serve.jobs.sources import weight
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import Settings

# Batches of a portion: with more of them less waits at its ends, and what a lost worker had is longer.
BATCHES_OF_PORTION = 8
PORTION_BYTES = 64 << 20
# A portion that so many workers were lost with is taken to be why.
MOST_LOST = 3


@dataclass(frozen=True)
class Portion:
    """Inputs that one worker answers together."""

    inputs: Sequence[JobInput]
    lost: int = 0  # workers that ended while they had it

    @property
    def nbytes(self) -> int:
        """Returns about how many bytes it takes."""
        return sum(weight(one.found) for one in self.inputs)


@dataclass(eq=False)
class Hired:
    """A worker that runs, or starts."""

    actor: Any
    is_lost: bool = False


class Workers:
    """So many workers with the same store; those that there is no room for yet are waited for by nobody."""

    def __init__(self, settings: Settings, count: int, revision: str) -> None:
        """`revision` of the store is that of the job, which every worker must have."""
        self._settings, self._count, self._revision = settings, count, revision
        options = {"max_concurrency": PORTIONS_AT_ONCE, **resources(settings)}
        self._actor: Any = ray.remote(Worker).options(**options)
        # By what they will return.
        self._starting: dict[Any, Hired] = {}
        self._busy: dict[Any, tuple[Hired, Portion]] = {}
        self._free: deque[Hired] = deque()  # each as often as it can take a portion
        self._again: deque[Portion] = deque()  # whose workers are lost
        self._lost_loading = 0  # workers, one after the other

    def rows(self, job: Job, stream: Stream) -> Generator[list[Result], None, None]:
        """Answers what the job reads: a `RowSource`. Raises JobError and StoreError."""
        most = BATCHES_OF_PORTION * job.asked.batch_inputs
        ahead = Ahead(_portions(stream, most), 1, PORTION_BYTES, lambda portion: portion.nbytes)
        try:
            for _ in range(self._count):
                self._start(job)
            with closing(ahead):
                yield from self._answered(job, iter(ahead))
        finally:
            busy = [worker for worker, _ in self._busy.values()]
            for worker in {*self._free, *self._starting.values(), *busy}:
                ray.kill(worker.actor)

    def _answered(self, job: Job, portions: Iterator[Portion]) -> Generator[list[Result], None, None]:
        last = False  # no portion is to come, but for those that are lost
        while True:
            while self._free and (self._again or not last):
                portion = self._again.popleft() if self._again else next(portions, None)
                if portion is None:
                    last = True
                else:
                    self._send(portion)
            if last and not self._busy and not self._again:
                return
            (done,), _ = ray.wait([*self._busy, *self._starting], num_returns=1)
            if done in self._starting:
                self._take_into_service(done, job)
            elif (results := self._returned(done, job)) is not None:
                yield results

    def _start(self, job: Job) -> None:
        actor = self._actor.remote(self._settings, job)
        self._starting[actor.load.remote()] = Hired(actor)

    def _take_into_service(self, loaded: Any, job: Job) -> None:
        worker = self._starting.pop(loaded)
        try:
            revision = ray.get(loaded)
        except RayActorError as error:
            self._lost_loading += 1
            if self._lost_loading == MOST_LOST:
                raise JobError(
                    f"{MOST_LOST} workers ended while they loaded the store: give them more memory"
                ) from error
            self._start(job)
            return
        except RayTaskError as error:
            raise _told(error, "a worker cannot load the store") from error
        if revision != self._revision:
            raise JobError(
                f"the store has changed while workers started: the job is of its revision {self._revision};"
                " roll it back, or begin anew with another --out"
            )
        self._lost_loading = 0
        self._free.extend([worker] * PORTIONS_AT_ONCE)

    def _send(self, portion: Portion) -> None:
        worker = self._free.popleft()
        self._busy[worker.actor.answer.remote(portion.inputs)] = worker, portion

    def _returned(self, done: Any, job: Job) -> list[Result] | None:
        """Returns a portion's rows; None where its worker is lost, for which another is started."""
        worker, portion = self._busy.pop(done)
        try:
            results: list[Result] = ray.get(done)
        except (RayActorError, ObjectLostError) as error:  # rows, too, are lost with the machine they are on
            self._again.append(_lost_once_more(portion, error))
            if not worker.is_lost:
                worker.is_lost = True
                self._free = deque(other for other in self._free if other is not worker)
                self._start(job)
            return None
        except RayTaskError as error:
            raise _told(error, "a worker failed") from error
        self._free.append(worker)
        return results


def _lost_once_more(portion: Portion, error: Exception) -> Portion:
    """Returns a portion to be answered by another worker. Raises JobError where it may be to blame."""
    if portion.lost + 1 == MOST_LOST:
        first, last = portion.inputs[0].id, portion.inputs[-1].id
        raise JobError(
            f"{MOST_LOST} workers ended while they had the inputs {first} to {last}; what is done is kept"
        ) from error
    return Portion(portion.inputs, portion.lost + 1)


def _portions(stream: Stream, most: int) -> Generator[Portion, None, None]:
    """Yields the inputs in portions of at most so many, and of few more bytes than PORTION_BYTES."""
    inputs: list[JobInput] = []
    nbytes = 0
    with closing(stream):
        for one in stream:
            inputs.append(one)
            nbytes += weight(one.found)
            if len(inputs) == most or nbytes >= PORTION_BYTES:
                yield Portion(inputs)
                inputs, nbytes = [], 0
    if inputs:
        yield Portion(inputs)


def _told(error: Exception, what: str) -> Exception:
    """Returns what a worker raised, or a sentence for what is none of ours."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, JobError | StoreError):
        return cause
    return JobError(f"{what}: {reason(error)}")
