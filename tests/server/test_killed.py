"""SIGKILL, as the kernel sends it when memory is short: no caller hangs, and the next server just starts."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image

from mass_serve.model_store.revisions import remove_task
from mass_serve.model_store.store import Store
from tests.pictures import encode, picture
from tests.server.fakes import HANG
from tests.server_processes import PATIENCE, RunningServer, StartServer, serving, wait_for

PICTURE = encode(Image.linear_gradient("L").convert("RGB"))
CLIENTS = 6


def kill(server: RunningServer) -> None:
    server.process.kill()
    assert server.process.wait(PATIENCE) == -signal.SIGKILL


def lost_its_server(error: BaseException | None) -> bool:
    """The connection broke. A client that found out by its own patience would have hung without it."""
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.TimeoutException)


def ask(server: RunningServer, data: bytes) -> httpx.Response:
    return httpx.post(
        f"{server.client.base_url}/v1/classify", content=data, timeout=PATIENCE, trust_env=False
    )


def connect(server: RunningServer, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    connection.sendall(data)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Raises TimeoutError where the client would go on waiting."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_every_request_ends_wherever_it_was(start_server: StartServer) -> None:
    """On the device, in the queue, half sent, and between two requests."""
    server = start_server(max_batch_images=1)
    server.wait_until_ready()
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with (
        ThreadPoolExecutor(CLIENTS) as pool,
        connect(server, head + b"the beginning") as half_sent,
        connect(server, b"") as silent,
    ):
        waiting = [pool.submit(ask, server, picture(1, green=HANG))]
        wait_for(lambda: server.metric("mass_requests_in_progress") == 2)
        waiting += [pool.submit(ask, server, picture(2)) for _ in range(CLIENTS - 1)]
        wait_for(lambda: server.metric("mass_queue_depth") == CLIENTS - 1)
        kill(server)
        assert all(lost_its_server(request.exception(PATIENCE)) for request in waiting)
        assert is_closed(half_sent)
        assert is_closed(silent)
    successor = start_server(port=server.port)
    successor.wait_until_ready()
    assert ask(successor, picture(3)).json()["results"][0]["label"] == "3"


def ask_to_the_end(server: RunningServer) -> tuple[set[int], httpx.TransportError]:
    """Asks without a pause until there is nobody to answer: the statuses before that, and how it ended."""
    statuses: set[int] = set()
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
        while True:
            try:
                response = client.post(f"{server.client.base_url}/v1/classify", content=PICTURE)
            except httpx.TransportError as error:
                return statuses, error
            statuses.add(response.status_code)


def content(store: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, hidden ones too, with the time it was written."""
    return {
        str(path.relative_to(store)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in store.rglob("*")
        if path.is_file()
    }


def answers(server: RunningServer) -> list[object]:
    """What the tasks and the router say to one image, with the revisions."""
    paths = ["/v1/classify", "/v1/classify?tasks=digits", "/v1/classify?tasks=street"]
    responses = [server.client.post(path, content=PICTURE) for path in paths]
    assert [response.status_code for response in responses] == [200] * len(paths)
    return [response.json()["results"] for response in responses]


def test_the_store_and_the_port_are_as_they_were(store: Path) -> None:
    # In this order, so that a test that fails ends the server, and with it the clients.
    with ThreadPoolExecutor(CLIENTS) as pool, serving(store) as server:
        server.wait_until_ready()
        expected = answers(server)
        before = content(store)
        asking = [pool.submit(ask_to_the_end, server) for _ in range(CLIENTS)]
        wait_for(lambda: server.metric('mass_requests_total{code="200",protocol="v1"}') > 10 * CLIENTS)
        kill(server)
        _all_were_answered_until_then(asking)
    assert content(store) == before
    assert Store.open(store).verify() == []
    with serving(store, store_poll_seconds=0.05, port=server.port) as successor:
        successor.wait_until_ready()
        assert answers(successor) == expected
        # Nothing of the dead one keeps a writer out, nor the next server from following it.
        remove_task(store, "signs")
        wait_for(lambda: successor.client.get("/v1/tasks/signs").status_code == 404)


def _all_were_answered_until_then(asking: list[Future[tuple[set[int], httpx.TransportError]]]) -> None:
    for client in asking:
        statuses, error = client.result(PATIENCE)
        assert statuses == {200}
        assert lost_its_server(error), repr(error)
