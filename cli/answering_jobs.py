"""What answers the inputs of a job: an engine in this process, or workers on a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Protocol, TypeAlias

from mass_serve.cli.questions import HasTasks
from mass_serve.distributed.share import with_whole_paths, within_share
from mass_serve.model_store.format.groups import groups_among
from mass_serve.model_store.format.preprocessing import TextPreprocessing
from mass_serve.server.settings import Settings

if TYPE_CHECKING:
    from mass_serve.engine import StoreSource
    from mass_serve.jobs import Done, Job, JobProgress

WITHOUT_RAY = "Ray, or a package that it needs, is not installed: pip install 'mass-serve[ray]'"
Told: TypeAlias = "Callable[[JobProgress], None]"


class Answering(HasTasks, Protocol):
    """Answers the inputs of a job."""

    @property
    def settings(self) -> Settings:
        """Says how each engine is to be used."""

    @property
    def reads_texts(self) -> bool:
        """Tells whether the store reads texts, and not images."""

    @property
    def store_revision(self) -> str:
        """Returns the store's revision that answers."""

    def run(self, job: Job, told: Told) -> Done:
        """Runs a job. Raises JobError and StoreError."""


class Here:
    """An engine in this process."""

    def __init__(self, settings: Settings, source: StoreSource) -> None:
        """Loads the store. Raises StoreError and ValueError."""
        self.settings = settings
        self._engine = source.load()
        self.tasks = self._engine.tasks
        self.groups = self._engine.groups
        self.reads_texts = self._engine.tokenizer is not None
        self.store_revision = self._engine.store_revision

    def run(self, job: Job, told: Told) -> Done:
        """Runs a job. Raises JobError."""
        from mass_serve.jobs import run_job

        device = self._engine.bank.device.type
        return run_job(self._engine, job, _depends_on(self.settings, self.store_revision, device), told)


class OnRay:
    """Workers on a cluster, each with an engine; this process reads the store's manifest alone."""

    def __init__(self, settings: Settings, source: StoreSource, count: int) -> None:
        """Joins the cluster. Raises StoreError, and ValueError without Ray or a cluster."""
        from mass_serve.model_store.store import Store

        manifest = Store.open(source.url, settings.trusted_keys).manifest
        self.settings = within_share(with_whole_paths(settings.model_copy(update={"store": source.url})))
        self.tasks = {task.name: task for task in manifest.tasks}
        self.groups = groups_among(manifest.groups, self.tasks)
        self.reads_texts = isinstance(manifest.preprocessing, TextPreprocessing)
        self.store_revision = manifest.store_revision
        try:
            from mass_serve.distributed import cluster, workers
        except ModuleNotFoundError as error:
            raise ValueError(WITHOUT_RAY) from error
        cluster.connect()
        self._leave = cluster.leave
        self._workers = workers.Workers(self.settings, count, self.store_revision)

    def run(self, job: Job, told: Told) -> Done:
        """Runs a job. Raises JobError and StoreError."""
        from mass_serve.jobs import run_job_by

        depends_on = _depends_on(self.settings, self.store_revision, self.settings.device)
        # Ray tells of a worker that died on standard output, which is the command's.
        with redirect_stdout(sys.stderr):
            try:
                return run_job_by(self._workers.rows, job, depends_on, told)
            finally:
                self._leave()


def _depends_on(settings: Settings, revision: str, device: str) -> dict[str, object]:
    """What the answers depend on beside the job: one job has one of each."""
    return {
        "store_revision": revision,
        "device": device,
        "dtype": settings.engine_options.chosen_dtype,
        "first_pass_dtype": settings.first_pass_dtype,
        "execution": settings.execution.value,
        "mode": settings.mode,
        "embedding_pooling": settings.embedding_pooling,
    }
