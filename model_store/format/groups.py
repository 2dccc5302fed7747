"""Named groups of tasks: where tasks are named, `@retail` stands for those of the group `retail`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from mass_serve.model_store.format.field_types import TASK_NAME_PATTERN, TaskName, spelled_otherwise

# What tells the name of a group from a task's, which has no such character.
GROUP_MARK = "@"

Groups = dict[str, tuple[TaskName, ...]]


def check_groups(groups: Mapping[str, Collection[str]], tasks: Collection[str]) -> None:
    """Raises ValueError unless every group has tasks, each once, and no name that is another's or a task's.

    `tasks` are those of the store, removed ones that can be brought back among them.
    """
    taken = {task.lower(): task for task in tasks}
    if clash := spelled_otherwise(groups):
        raise ValueError(f"groups: {clash[0]} and {clash[1]} differ in their case alone")
    for group, members in groups.items():
        if not re.fullmatch(TASK_NAME_PATTERN, group):
            raise ValueError(
                f"groups: the name {group[:80]!a} must be 1 to 64 of A-Z, a-z, 0-9, - and _, starting with a"
                f" letter or digit; in requests alone {GROUP_MARK} stands before it"
            )
        if task := taken.get(group.lower()):
            raise ValueError(f"groups.{group}: has the name of the task {task}; choose another name")
        if not members or len(set(members)) != len(members):
            raise ValueError(f"groups.{group}: must name at least one task, and each once")
        for member in members:
            if member.startswith(GROUP_MARK):
                raise ValueError(f"groups.{group}: has {member[:80]!a}; name the tasks of that group instead")
            if taken.get(member.lower()) != member:
                raise ValueError(f"groups.{group}: names {member[:80]!a}, and the store has no such task")


def groups_among(groups: Mapping[str, Collection[str]], tasks: Collection[str]) -> Groups:
    """Returns the groups with these of their tasks alone, which may be none."""
    return {group: tuple(one for one in members if one in tasks) for group, members in groups.items()}
