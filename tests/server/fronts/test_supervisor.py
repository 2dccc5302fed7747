"""The supervisor where front ends cannot be started: it tries again, ever later, and then ends."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from mass_serve.server.fronts import child, supervisor
from mass_serve.server.fronts.beginning import SIGNALS
from mass_serve.server.fronts.device import Device
from mass_serve.server.fronts.listening import listen_together
from mass_serve.server.fronts.supervisor import MOST_TRIES, Supervisor
from mass_serve.server.settings import load_settings
from tests.server.fake_server import FakeSource


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    """Two sockets on a port, and the signals' handlers as they were afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    found = listen_together("127.0.0.1", 0, 2)
    yield found
    for listener in found:
        listener.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def ends_well(listeners: list[socket.socket]) -> bool:
    device = Device(load_settings({"front_ends": 2}), FakeSource(0.0))
    device.start()
    keeping = Supervisor(load_settings({}), device, listeners)
    try:
        return keeping.run()
    finally:
        device.close()
        keeping.end()


def test_front_ends_that_end_at_once_end_the_service(
    listeners: list[socket.socket], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    started = tmp_path_factory.mktemp("started") / "starts"
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(child, "PROGRAM", f"open({str(started)!r}, 'a').write('x'); raise SystemExit(3)")
    assert not ends_well(listeners)
    assert 2 * MOST_TRIES <= len(started.read_text()) < 4 * MOST_TRIES


def test_a_system_without_room_for_processes_ends_the_service(
    listeners: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def no_room(*_: object, **__: object) -> None:
        tries.append(1)
        raise OSError(errno.EAGAIN, "no room for a process")

    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(subprocess, "Popen", no_room)
    assert not ends_well(listeners)
    assert len(tries) >= 2 * MOST_TRIES
