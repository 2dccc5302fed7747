"""For all tests: what is optional, and how a run says that nothing of it may be missing."""

from __future__ import annotations

import pytest

from tests import optional


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nothing-missing", action="store_true", help="fail where a test would skip for want of a package"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    optional.need(item)
