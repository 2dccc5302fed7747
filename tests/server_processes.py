"""Real server processes on free ports of the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import httpx

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
# To import torch on a machine that is busy with other tests.
STARTING = 120.0


@dataclass(frozen=True)
class RunningServer:
    """A server process and a client for it."""

    process: subprocess.Popen[str]
    client: httpx.Client
    errors: IO[str]  # its standard error: a file, because a full pipe would stop the server

    @property
    def port(self) -> int:
        port = self.client.base_url.port
        assert port is not None
        return port

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.client.get("/readyz").status_code == 200)

    def log(self) -> str:
        """Everything that was logged so far."""
        return _read(self.errors)

    def metric(self, line: str) -> float:
        """The value of one sample, such as `mass_ready`."""
        for sample in self.client.get("/metrics").text.splitlines():
            name, _, value = sample.rpartition(" ")
            if name == line:
                return float(value)
        raise AssertionError(f"there is no sample {line}")


StartServer = Callable[..., RunningServer]


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns as soon as the condition holds, which it must in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(
    load_seconds: float, settings: dict[str, object], variables: Mapping[str, str] | None = None
) -> AbstractContextManager[RunningServer]:
    """The fake server, stopped at the end however the test went; `variables` are added to its environment."""
    command = [sys.executable, "-m", "tests.server.fake_server", str(load_seconds)]
    return server_process(command, settings, variables)


def serving(
    store: Path | str, variables: Mapping[str, str] | None = None, **settings: object
) -> AbstractContextManager[RunningServer]:
    """`mass-serve serve` of a real store."""
    command = [sys.executable, "-m", "mass_serve.cli", "serve", str(store)]
    return server_process(command, settings, variables)


def demo_server(**settings: object) -> AbstractContextManager[RunningServer]:
    """`mass-serve serve` as it is typed first: of the demo store."""
    return server_process([sys.executable, "-m", "mass_serve.cli", "serve"], settings)


@contextmanager
def server_process(
    command: list[str],
    settings: dict[str, object],
    variables: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> Iterator[RunningServer]:
    """Any server that logs its address first, run in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASS_")}
    # Raw requests of the tests call the server by short names of their own.
    settings = {"port": 0, "log_format": "json", "allowed_hosts": "*"} | settings
    environment["MASS_DTYPE"] = "float32"  # what tests expect, whatever this machine multiplies faster
    environment.update({f"MASS_{name.upper()}": str(value) for name, value in settings.items()})
    environment.update(variables or {})
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(command, cwd=folder, env=environment, text=True, stderr=errors) as process,
    ):
        try:
            with httpx.Client(
                base_url=_address(process, errors), timeout=PATIENCE, trust_env=False
            ) as client:
                yield RunningServer(process, client, errors)
        finally:
            process.kill()


def _address(process: subprocess.Popen[str], errors: IO[str]) -> str:
    """The URL in the first line of a server's log."""
    deadline = time.monotonic() + STARTING
    while True:
        log = _read(errors)
        if "\n" in log:
            address: str = json.loads(log.splitlines()[0])["url"]
            return address
        assert process.poll() is None, log
        assert time.monotonic() < deadline, "the server did not say where it listens"
        time.sleep(0.02)


def _read(file: IO[str]) -> str:
    """All of a file, whose position stays where it is: the server that writes it has the same one."""
    return os.pread(file.fileno(), 1 << 28, 0).decode(errors="replace")
