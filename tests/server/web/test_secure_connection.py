"""A server that speaks TLS, over HTTP and gRPC, to clients that trust its certificate and to others."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest

from mass_serve.server.rpc import open_inference_pb2 as wire
from mass_serve.server.serving import tls
from tests.certificates import Certificate, write_certificate
from tests.pictures import picture
from tests.server.rpc.servers import address, image_request, method
from tests.server_processes import PATIENCE, RunningServer, running, wait_for

# Larger than the buffers of the kernel.
MANY = 8
MOST_CONNECTIONS = 20


@pytest.fixture
def files(tmp_path: Path) -> Certificate:
    return write_certificate(tmp_path)


@pytest.fixture
def server(files: Certificate) -> Iterator[RunningServer]:
    settings = {"tls_cert": files.cert, "tls_key": files.key, "grpc_port": 0}
    limits = {"client_timeout": 2.0, "max_connections": MOST_CONNECTIONS, "drain_seconds": 0}
    with running(0.0, settings | limits) as started:
        yield started


def client(server: RunningServer, trusted: Certificate) -> httpx.Client:
    url = f"https://127.0.0.1:{server.port}"
    return httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False, verify=trusted.trusting)


def wait_until_ready(server: RunningServer, trusted: Certificate) -> None:
    with client(server, trusted) as made:
        wait_for(lambda: made.get("/readyz").status_code == 200)


def dropped(made: httpx.Client, reason: str) -> float:
    line = f'mass_connections_dropped_total{{reason="{reason}"}} '
    [found] = [text for text in made.get("/metrics").text.splitlines() if text.startswith(line)]
    return float(found.rpartition(" ")[2])


def test_both_transports_show_the_certificate_and_the_next_one(
    server: RunningServer, files: Certificate
) -> None:
    wait_until_ready(server, files)
    before, trusted = files.cert.read_bytes(), files.trusting
    with client(server, files) as made:
        assert made.post("/v1/classify", content=picture(7)).json()["results"][0]["label"] == "7"
        assert grpc_label(server, before) == b"9"
        time.sleep(tls.POLL_SECONDS)
        write_certificate(files.cert.parent)
        with client(server, files) as fresh:
            assert fresh.get("/v1/tasks").status_code == 200
        assert grpc_label(server, files.cert.read_bytes()) == b"9"
        assert made.get("/v1/tasks").status_code == 200, "a connection that is there keeps what it began with"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://127.0.0.1:{server.port}/livez", verify=trusted, trust_env=False)


def grpc_label(server: RunningServer, root: bytes) -> bytes:
    """The label that a new connection by gRPC is told of an image of the colour 9."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address(server), grpc.ssl_channel_credentials(root), options) as made:
        answer: wire.ModelInferResponse = method(made, "ModelInfer")(image_request(picture(9)))
    [label] = [output for output in answer.outputs if output.name == "label"]
    return bytes(label.contents.bytes_contents[0])


def test_large_bodies_and_answers_pass(server: RunningServer, files: Certificate) -> None:
    wait_until_ready(server, files)
    with client(server, files) as made:
        parts = [("images", picture(number, size=(800, 800))) for number in range(MANY)]
        answer = made.post("/v1/classify?top_k=256", files=parts)
        assert [result["label"] for result in answer.json()["results"]] == [str(n) for n in range(MANY)]


def test_whoever_shakes_no_hands_holds_nothing_for_long(server: RunningServer, files: Certificate) -> None:
    wait_until_ready(server, files)
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) for _ in range(3)]
    for connection in silent:
        assert connection.recv(1) == b"", "is closed after client_timeout"
        connection.close()
    with client(server, files) as made:
        assert dropped(made, "handshake") == 3


def test_connections_without_a_handshake_are_of_the_crowd(server: RunningServer, files: Certificate) -> None:
    wait_until_ready(server, files)
    with ExitStack() as flood:
        for _ in range(3 * MOST_CONNECTIONS):
            flood.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
        with client(server, files) as made:
            assert made.post("/v1/classify", content=picture(1)).status_code == 200
            assert dropped(made, "no_room") > MOST_CONNECTIONS


def test_plain_http_and_old_protocols_are_refused(server: RunningServer, files: Certificate) -> None:
    wait_until_ready(server, files)
    with pytest.raises(httpx.TransportError):
        server.client.get("/livez")
    old = files.trusting
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(connection, server_hostname="localhost")


def test_a_client_that_does_not_read_its_answer_is_dropped(server: RunningServer, files: Certificate) -> None:
    wait_until_ready(server, files)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as plain,
        files.trusting.wrap_socket(plain, server_hostname="localhost") as reader,
        client(server, files) as made,
    ):
        reader.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        wait_for(lambda: dropped(made, "slow_reader") == 1)


def test_a_drained_server_ends_while_clients_stay_connected(
    server: RunningServer, files: Certificate
) -> None:
    wait_until_ready(server, files)
    with client(server, files) as made:
        assert made.get("/v1/tasks").status_code == 200
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
    assert "Traceback" not in server.log()
