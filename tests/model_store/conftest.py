"""A store that tests of the store may change has two tasks: the suite has one more to add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.without_torchvision import import_without_torchvision


@pytest.fixture
def store(store_of_two: Path) -> Path:
    return store_of_two


@pytest.fixture(scope="module")
def open_clip() -> Any:
    return import_without_torchvision("open_clip")
