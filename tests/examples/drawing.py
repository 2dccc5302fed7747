"""Which of the suites' tasks are drawn with letters of fonts, and so cannot be drawn where there are none."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from examples.demo_suite.tasks import Task
from examples.suites.scripts import SCRIPTS

WITH_FONTS = {"street", "greek", "hebrew", "devanagari", "typed", "small_letters", "capitals", *SCRIPTS}


def each(tasks: Iterable[Task]) -> pytest.MarkDecorator:
    """A test of every task, some of which need fonts."""
    marks = pytest.mark.optional("fonts")
    return pytest.mark.parametrize(
        "task",
        [pytest.param(task, id=task.name, marks=marks if task.name in WITH_FONTS else ()) for task in tasks],
    )
