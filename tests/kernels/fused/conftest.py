"""The fused kernels; see `tests.interpreter`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interpreter import need_a_gpu


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    need_a_gpu(items, Path(__file__).parent)
