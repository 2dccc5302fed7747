"""A store that tests of the store may change has two tasks: the suite has one more to add."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest


@pytest.fixture
def store(store_of_two: Path) -> Path:
    return store_of_two


@pytest.fixture(scope="module")
def open_clip() -> Any:
    """The package without torchvision, whose wheel has another torch: its transforms are not tested here."""
    parts = ("torchvision", "torchvision.ops", "torchvision.ops.misc", "torchvision.transforms")
    names = (*parts, "torchvision.transforms.functional")
    with mock.patch.dict(sys.modules, dict.fromkeys(names, mock.MagicMock())):
        return importlib.import_module("open_clip")
