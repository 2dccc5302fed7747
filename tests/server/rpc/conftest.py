"""One server for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from tests.server.rpc.servers import SMALL_LIMITS, channel, grpc_server
from tests.server_processes import RunningServer


@pytest.fixture(scope="session")
def rpc_server() -> Iterator[RunningServer]:
    with grpc_server(**SMALL_LIMITS) as server:
        yield server


@pytest.fixture
def rpc(rpc_server: RunningServer) -> Iterator[grpc.Channel]:
    """A connection to it."""
    with channel(rpc_server) as made:
        yield made
