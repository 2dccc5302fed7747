"""The tasks that callers name: by their own names, or by `@retail` for all of the group `retail`.

    named_tasks(["@retail", "digits"], engine.tasks, engine.groups)  # ("cars", "shoes", "digits")

This is the one place where names become tasks; whoever asks an engine comes by here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from mass_serve.model_store.format.groups import GROUP_MARK

# Of the tasks and groups that there are, named where another was asked for.
_MOST_TOLD = 20

TasksOfGroups = Mapping[str, Sequence[str]]


class UnknownTaskError(ValueError):
    """A name is that of no task that is served, nor of a group that has one."""


def named_tasks(names: Iterable[str], served: Collection[str], groups: TasksOfGroups) -> tuple[str, ...]:
    """The tasks that these names stand for, in their order; one that is named twice is there once.

    `groups` has the tasks of each group that are served. Raises UnknownTaskError.
    """
    found: dict[str, None] = {}
    for name in names:
        found |= dict.fromkeys(_stands_for(name, served, groups))
    return tuple(found)


def _stands_for(name: str, served: Collection[str], groups: TasksOfGroups) -> Sequence[str]:
    if not name.startswith(GROUP_MARK):
        if name not in served:
            raise UnknownTaskError(f"there is no task {name[:80]!a}; there are {_told(served)}")
        return (name,)
    members = groups.get(name.removeprefix(GROUP_MARK))
    if members is None:
        known = _told([f"{GROUP_MARK}{group}" for group in groups]) or "none"
        raise UnknownTaskError(f"there is no group {name[:80]!a}; the groups are: {known}")
    if not members:
        raise UnknownTaskError(f"none of the tasks of the group {name} is served now")
    return members


def _told(names: Collection[str]) -> str:
    """The names, or as many of them as a sentence bears."""
    more = len(names) - _MOST_TOLD
    return ", ".join(list(names)[:_MOST_TOLD]) + (f" and {more:,} more" if more > 0 else "")
