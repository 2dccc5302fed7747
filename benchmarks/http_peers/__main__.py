"""Requests a second of this server beside LitServe and mosec, in one run.

    python -m benchmarks.http_peers [--json FILE] [--seconds N] [--rounds N] [--clients N]

All get the same JSON, one image in base64 each: small PNGs, and JPEGs of 224 and of 1024 pixels. Ours serves
the demo store and is asked for one named task of eight, as one process and with two front ends; the others
have transformers' encoder of the same sizes and one head, in their recommended way: batches of up to 32
images, two processes that decode, one thread of torch in each that has the model. They take turns, so that a
noisy machine disturbs all alike. Processor times are those of all of a server's processes; the load generator
runs on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.service.generator import Connection
from benchmarks.service.processes import PATIENCE, running_server
from mass_serve.server.protocols.bodies import MOST_JSON_HERE

# Ours by their flags.
OURS = {"mass-serve": (), "mass-serve, 2 front ends": ("--front-ends", "2")}
PEERS = {
    "LitServe": ("benchmarks.http_peers.litserve_server",),
    # Its own 3 seconds for a request pass where a machine has other work.
    "mosec": ("benchmarks.http_peers.mosec_server", "--timeout", "30000"),
}
PATHS = {
    **dict.fromkeys(OURS, "/v1/classify?tasks=digits"),
    "LitServe": "/predict",
    "mosec": "/inference",
}
PICTURES = 16
WARM_UP_SECONDS = 2.0


@dataclass(frozen=True)
class Target:
    """A running server."""

    name: str
    port: int
    process: psutil.Process

    def processor_seconds(self) -> float:
        """Returns what all of its processes have computed for."""
        times = (one.cpu_times() for one in (self.process, *self.process.children(recursive=True)))
        return float(sum(one.user + one.system for one in times))


@dataclass(frozen=True)
class Load:
    """What came back within a few seconds."""

    requests_per_second: float
    milliseconds_p50: float
    milliseconds_p99: float
    processor_milliseconds: float


def pictures() -> dict[str, list[bytes]]:
    """Image files as they are sent: noise on smooth colours, which compresses as photographs do."""
    rng = np.random.default_rng(0)

    def file(edge: int, image_format: str) -> bytes:
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((edge, edge), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = (smooth + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
        stream = BytesIO()
        Image.fromarray(noisy).save(stream, image_format)
        return stream.getvalue()

    kinds = {"PNG of 32 pixels": (32, "PNG"), "JPEG of 224": (224, "JPEG"), "JPEG of 1024": (1024, "JPEG")}
    found = {name: [file(*kind) for _ in range(PICTURES)] for name, kind in kinds.items()}
    assert all(len(one) < MOST_JSON_HERE // 2 for files in found.values() for one in files)
    return found


@contextmanager
def peer(name: str) -> Iterator[Target]:
    """Starts LitServe or mosec, and waits until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", *PEERS[name], "--address", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            target = Target(name, port, psutil.Process(process.pid))
            _wait_for_an_answer(target, process, Path(f"/proc/self/fd/{log.fileno()}"))
            yield target
        finally:
            # The whole group: LitServe leaves processes behind that would hold on to the port.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


@contextmanager
def own(name: str) -> Iterator[Target]:
    """Starts this server, and waits until it is ready."""
    with running_server(None, "--num-threads", "1", "--log-format", "json", *OURS[name]) as server:
        yield Target(name, server.port, psutil.Process(server.process.pid))


def _wait_for_an_answer(target: Target, process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises RuntimeError, with the server's last words, where it ends or does not answer."""
    body = body_of(pictures()["PNG of 32 pixels"][0])
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):  # it does not listen yet
            answer = httpx.post(f"http://127.0.0.1:{target.port}{PATHS[target.name]}", content=body)
            if answer.status_code == httpx.codes.OK:
                return
        time.sleep(0.5)
    # A mosec that was installed with `--target` has no program where it looks for it: beside Python's own.
    said = log.read_text()[-500:]
    raise RuntimeError(f"{target.name} does not answer; pip install 'mass-serve[peers]'; it said: {said}")


def body_of(file: bytes) -> bytes:
    """Returns the JSON that has one image."""
    return json.dumps({"images": [{"b64": b64encode(file).decode()}]}).encode()


def requests_of(target: Target, files: Sequence[bytes]) -> list[bytes]:
    """Returns one whole request for each file."""
    bodies = map(body_of, files)
    head = f"POST {PATHS[target.name]} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return [head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]


async def loaded(target: Target, files: Sequence[bytes], seconds: float, clients: int) -> Load:
    """Has so many clients ask, each again as soon as it is answered. Raises RuntimeError for a bad answer."""
    requests, latencies = cycle(requests_of(target, files)), []
    loop = asyncio.get_running_loop()

    async def client(end: float) -> None:
        _, connection = await loop.create_connection(Connection, "127.0.0.1", target.port)
        while (began := time.perf_counter()) < end:
            if (status := await connection.ask(next(requests))) != httpx.codes.OK:
                raise RuntimeError(f"{target.name} answered {status}")
            latencies.append(1e3 * (time.perf_counter() - began))
        connection.transport.close()

    used, began = target.processor_seconds(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(began + seconds))
    took, used = time.perf_counter() - began, target.processor_seconds() - used
    latencies.sort()
    p50, p99 = (latencies[len(latencies) * percent // 100] for percent in (50, 99))
    return Load(len(latencies) / took, p50, p99, 1e3 * used / len(latencies))


def measured(seconds: float, rounds: int, clients: int) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Yields, for each kind of picture, the medians of every server."""
    with ExitStack() as stack:
        targets = [stack.enter_context(own(name)) for name in OURS]
        targets += [stack.enter_context(peer(name)) for name in PEERS]
        for kind, files in pictures().items():
            for target in targets:
                asyncio.run(loaded(target, files, WARM_UP_SECONDS, clients))
            found: dict[str, list[Load]] = {target.name: [] for target in targets}
            for _ in range(rounds):
                for target in targets:
                    found[target.name].append(asyncio.run(loaded(target, files, seconds, clients)))
            yield kind, {name: _medians(loads) for name, loads in found.items()}


def _medians(loads: Sequence[Load]) -> dict[str, float]:
    return {
        name: statistics.median(getattr(load, name) for load in loads) for name in Load.__dataclass_fields__
    }


def over_best_peer(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Returns the requests a second of each of ours over those of the better of the others."""
    best = max(found[name]["requests_per_second"] for name in PEERS)
    return {name: found[name]["requests_per_second"] / best for name in OURS}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server and kind of picture")
    parser.add_argument("--clients", type=int, default=32, help="requests at once")
    options = parser.parse_args()
    recorded = {}
    for kind, found in measured(options.seconds, options.rounds, options.clients):
        recorded[kind] = {"over_best_peer": over_best_peer(found), "servers": found}
        print(json.dumps({kind: recorded[kind]}), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(recorded, indent=2) + "\n")


if __name__ == "__main__":
    main()
