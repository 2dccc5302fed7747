"""For all tests: what is optional, and how a run says that nothing of it may be missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import optional
from tests.interpreter import InterpretedRuns


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nothing-missing", action="store_true", help="fail where a test would skip for want of a package"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    optional.need(item)


@pytest.fixture(scope="session")
def interpreted(request: pytest.FixtureRequest) -> Iterator[InterpretedRuns]:
    """Runs in the interpreter, begun together, of all files that the tests of this session ask for."""
    calls = (item.callspec.params for item in request.session.items if hasattr(item, "callspec"))
    runs = InterpretedRuns(params["fused_tests"] for params in calls if "fused_tests" in params)
    yield runs
    runs.close()
