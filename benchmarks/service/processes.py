"""The server and the load generator as processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from benchmarks.service.generator import Journal, Plan

PATIENCE = 300.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    client: httpx.Client
    process: subprocess.Popen[bytes]
    log: Path  # what it says on both outputs

    @property
    def port(self) -> int:
        port = self.client.base_url.port
        assert port is not None
        return port

    def store_revision(self) -> str:
        """Returns what is in service."""
        revision: str = self.client.get("/v1/tasks").raise_for_status().json()["store_revision"]
        return revision


@contextmanager
def running_server(
    store: Path | None,
    *flags: str,
    checkout: Path | None = None,
    variables: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> Iterator[Server]:
    """A server for a store (or the demo store), ready, with its ordinary settings, float32 and `flags`.

    `checkout` is the folder of another version to start; `variables` are added to the environment, of which
    it gets nothing else that is called MASS_. One that does not end within `patience` is killed.
    """
    stores = [] if store is None else [str(store)]
    command = [sys.executable, "-m", "mass_serve.cli", "serve", *stores, "--port", "0", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASS_")}
    if checkout is not None:
        environment["PYTHONPATH"] = str(checkout)
    environment["MASS_DTYPE"] = "float32"  # what all figures are of, on whichever machine
    environment.update(variables or {})
    with tempfile.TemporaryFile("w+") as log:  # a pipe that nobody reads would stop the server
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=checkout, env=environment
        )
        said = Path(f"/proc/self/fd/{log.fileno()}")
        try:
            address = _address(process, said)
            with httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False) as client:
                _wait_until_ready(client)
                yield Server(client, process, said)
        finally:
            _end(process, patience)


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://[\d.]+:\d+", log.read_text()):
            return found[0]
        time.sleep(0.1)
    raise RuntimeError(f"the server did not say where it listens: {log.read_text()}")


def _wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE
    while client.get("/readyz").status_code != 200:
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not become ready")
        time.sleep(0.2)


class Load:
    """A phase of load that is under way."""

    def __init__(self, plan: Plan) -> None:
        command = [sys.executable, "-m", "benchmarks.service.generator", json.dumps(asdict(plan))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def journal(self) -> Journal:
        """Returns what came back, once it is over."""
        with self._process as process:
            assert process.stdout is not None
            output = process.stdout.read()  # its input stays open meanwhile: closing it would end it
        return self._result(output)

    def stop(self) -> Journal:
        """Ends it; what came back, once the last answer is there."""
        return self._result(self._process.communicate()[0])

    def _result(self, output: bytes) -> Journal:
        if self._process.returncode:
            raise RuntimeError("the load generator failed")
        return Journal(**json.loads(output))
