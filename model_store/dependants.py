"""The created tasks that a task has to stay for."""

from __future__ import annotations

from mass_serve.model_store.errors import TaskError
from mass_serve.model_store.format.manifest import Manifest

# What is to be done then, by what was asked for.
_AFTERWARDS = {
    "removed": "and create it again afterwards",
    "replaced": "and create it again afterwards",
    "rolled back": "also this task's: give its earlier model with `task add --replace` instead",
}


def refuse_dependants(manifest: Manifest, name: str, how: str) -> None:
    """Raises TaskError where a created task is made of that one, which is to be `how`."""
    made_of_it = {
        entry.name
        for entry in manifest.all_entries()
        if entry.combination is not None and name in entry.combination.tasks
    }
    if made_of_it:
        raise TaskError(
            f"task {name} cannot be {how}: {' and '.join(sorted(made_of_it))}, now or in an earlier revision,"
            f" was made of its blocks by `task create`. Take that out with `task remove` and `task prune`"
            f" first, which deletes all earlier revisions, {_AFTERWARDS[how]}"
        )
