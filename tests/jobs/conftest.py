"""Small engines that answer at once, and files for them to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mass_serve.engine import Engine
from tests.jobs.made import tiny_engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Of images."""
    return tiny_engine()


@pytest.fixture(scope="session")
def text_engine(text_store: Path) -> Engine:
    """Of texts."""
    return Engine.load(str(text_store), device="cpu")
