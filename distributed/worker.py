"""One worker of a job: an engine that is asked about portions of inputs, decoded ahead as in any job."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing

from mass_serve.distributed.share import within_share
from mass_serve.jobs import Job, JobInput, Result, Stream, answer_prepared, preparer_of, result_of
from mass_serve.server.settings import Settings
from mass_serve.server.startup import store_source

# While one portion is on the device, the next is decoded.
PORTIONS_AT_ONCE = 2


class Worker:
    """Is an actor, with as many threads as it has portions at once."""

    def __init__(self, settings: Settings, job: Job) -> None:
        """Loads nothing yet: what is raised here would be no different from a worker's death."""
        self._settings, self._job = settings, job
        self._device = threading.Lock()

    def load(self) -> str:
        """Loads the store, and returns its revision. Raises StoreError, ValueError and SettingsError."""
        self._engine = store_source(within_share(self._settings)).load()
        self._preparer = preparer_of(self._engine, self._job.asked).__enter__()  # ends with the process
        return self._engine.store_revision

    def answer(self, inputs: Sequence[JobInput]) -> list[Result]:
        """Answers a portion, once the store is loaded. Raises JobError, and what the device raises."""
        answers = answer_prepared(
            self._engine, self._job.asked, _stream(inputs), self._preparer, self._device
        )
        with closing(answers):
            return [result_of(one, self._job.rows) for batch in answers for one in batch]


def _stream(inputs: Sequence[JobInput]) -> Stream:
    yield from inputs
