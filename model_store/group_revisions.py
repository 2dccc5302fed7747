"""Named groups of tasks in a finished store: each change is a new revision, as one of its tasks is.

    add_to_group("my-store", "retail", ["cars", "shoes"])  # from then on `@retail` stands for both

A task that is removed stays in its groups until `prune_store`, so that a rollback brings it back there, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from mass_serve.model_store.changing import StoreUrl, changing
from mass_serve.model_store.errors import TaskError
from mass_serve.model_store.format.groups import GROUP_MARK, Groups
from mass_serve.model_store.plan import refuse_groups
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import new_revision, publish


def add_to_group(url: StoreUrl, name: str, tasks: Sequence[str]) -> Store:
    """Puts tasks into a group, which is made where there is none of that name.

    Raises TaskError for a name that no group can have, for an unknown or removed task, and for none.
    """
    with changing(url) as store:
        groups = store.manifest.groups
        for task in tasks:
            if not task.startswith(GROUP_MARK):
                store.task(task)
        return _published(store, {**groups, name: tuple(dict.fromkeys((*groups.get(name, ()), *tasks)))})


def remove_from_group(url: StoreUrl, name: str, tasks: Sequence[str] = ()) -> Store:
    """Takes tasks out of a group, or without any the group; a group whose last task is taken out is gone.

    Raises TaskError for a group that there is not, and for a task that is not in it.
    """
    with changing(url) as store:
        groups = store.manifest.groups
        if name not in groups:
            known = ", ".join(groups) or "none"
            raise TaskError(f"there is no group {name!r} in {store.files.url}; its groups: {known}")
        members = groups[name]
        if others := [task for task in tasks if task not in members]:
            raise TaskError(f"task {others[0]!r} is not in the group {name}: it has {', '.join(members)}")
        left = tuple(member for member in members if tasks and member not in tasks)
        kept = {group: its for group, its in {**groups, name: left}.items() if its}
        return _published(store, kept)


def _published(store: Store, groups: Groups) -> Store:
    refuse_groups(groups, {entry.name for entry in store.manifest.all_entries()})
    update: dict[str, object] = {"store_revision": new_revision(), "groups": groups}
    return publish(store.files, store.manifest.model_copy(update=update))
