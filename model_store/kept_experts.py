"""The experts file of a task, kept open after its store was opened, to be read whenever it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mass_serve.model_store.combined_experts import Combination
from mass_serve.model_store.format.experts import TaskExperts
from mass_serve.model_store.store import Store


class KeptExperts:
    """What one task changes of the encoder, in a file that was opened once.

    The file stays readable when its name is removed or becomes another file's. Its bytes are hashed each time
    that they are read, so that nobody's write to it comes into use. It takes one open descriptor; of a remote
    store the file is a copy on this machine, whose room on the disk is free again with the last use.
    """

    def __init__(self, store: Store, task_name: str) -> None:
        """Opens the file. Raises IntegrityError where it cannot, and TaskError for an unknown task."""
        self._store, self._entry = store, store.task(task_name)
        self._file = store.kept_open(self._entry.experts_file)

    def load(self) -> TaskExperts:
        """Reads the file, into memory of its own. Raises IntegrityError where it is not what was written."""
        return self._store.experts_in(self._file, self._entry)


@dataclass(frozen=True)
class KeptCombination:
    """What a created task changes of the encoder, from the files of the tasks that it is made of."""

    combination: Combination
    others: Sequence[KeptExperts]

    def load(self) -> TaskExperts:
        """Reads the files of the others, and combines them. Raises IntegrityError."""
        return self.combination.experts([other.load() for other in self.others])


def kept_experts(store: Store, task_name: str) -> KeptExperts | KeptCombination:
    """Opens what there is to read of a task's change. Raises IntegrityError, and TaskError."""
    entry = store.task(task_name)
    if entry.combination is None:
        return KeptExperts(store, task_name)
    others = [KeptExperts(store, other) for other in entry.combination.tasks]
    return KeptCombination(Combination.of(store, entry), others)
