"""What is measured of a store without data, on its way into the manifest: by who can run its encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from mass_serve.backbone.architecture import Token
from mass_serve.model_store.format.entries import DrawnEnergiesSpec, TaskEntry
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.store import Store


@dataclass(frozen=True)
class Measured:
    """Holds what was measured; what is not here stays as the manifest has it."""

    exit_prices: Mapping[str, float] = field(default_factory=dict)  # by task
    late_token: Token | None = None
    drawn_energies: Mapping[str, DrawnEnergiesSpec] = field(default_factory=dict)  # by task

    def of_task(self, task: TaskEntry) -> TaskEntry:
        """The task's entry with what was measured of it."""
        found = {"exit_price": self.exit_prices, "drawn_energies": self.drawn_energies}
        update = {key: of_tasks[task.name] for key, of_tasks in found.items() if task.name in of_tasks}
        return task.model_copy(update=update) if update else task


# Called with a store whose files are all there, and whose manifest may not be written yet.
MeasureStore: TypeAlias = Callable[[Store, Progress], Measured]


def unmeasured(store: Store, progress: Progress) -> Measured:  # noqa: ARG001 - as all have them
    """Measures nothing: it is then done when a store is loaded, and late energies have a rule."""
    return Measured()


def with_measured(files: StoreFiles, draft: Manifest, measure: MeasureStore, progress: Progress) -> Manifest:
    """The manifest with what is measured of the store that it describes."""
    measured = measure(Store(files, draft), progress)
    tasks = tuple(map(measured.of_task, draft.tasks))
    late_token = measured.late_token or draft.router.late_token
    router = draft.router.model_copy(update={"late_token": late_token})
    return draft.model_copy(update={"tasks": tasks, "router": router})
