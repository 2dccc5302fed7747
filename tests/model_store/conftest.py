"""A store that tests of the store may change has two tasks: the suite has one more to add."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def store(store_of_two: Path) -> Path:
    return store_of_two
