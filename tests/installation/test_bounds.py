"""The bounds of dependencies, beside what is tested with; `make lowest` tests with the lowest of them."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement

from tests.installation.lowest import EXTRAS, ROOT, TESTS, TOOLS, lowest, pinned

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SERVED = [
    *PROJECT["dependencies"],
    *(one for name in EXTRAS for one in PROJECT["optional-dependencies"][name]),
]


@pytest.mark.parametrize("dependency", SERVED)
def test_the_tested_version_is_within_the_bounds(dependency: str) -> None:
    requirement = Requirement(dependency)
    (tested,) = pinned((requirement.name,))
    assert requirement.specifier.contains(tested.partition("==")[2], prereleases=True)


@pytest.mark.parametrize("dependency", SERVED)
def test_the_lowest_version_is_named(dependency: str) -> None:
    requirement = Requirement(dependency)
    assert requirement.specifier.contains(lowest()[requirement.name], prereleases=True)


def test_what_is_tested_with_the_lowest_is_there() -> None:
    assert all((ROOT / path).exists() for path in TESTS)
    assert len(pinned(TOOLS)) == len(TOOLS)
