"""Every suite by its name, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from examples.demo_suite.pretraining import Report
from examples.suites.demo import make_demo
from examples.suites.drawn import SUITES, make_suite
from examples.suites.real import make_real_text, make_real_vision

# Writes all of a suite to a folder and returns that of its store. Raises FontsMissingError, FetchError and
# CommandError.
MakeSuite = Callable[[Path, Report], Path]

MAKERS: Mapping[str, MakeSuite] = {
    "demo": make_demo,
    "real_vision": make_real_vision,
    "real_text": make_real_text,
    **{name: partial(make_suite, suite) for name, suite in SUITES.items()},
}
