"""What no client should do, over gRPC: it is ended, and HTTP and other callers are answered meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

import grpc
import pytest

from mass_serve.server.rpc import open_inference_pb2 as wire
from tests.pictures import picture
from tests.server.rpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    call_headers,
    connect,
    frame,
    message,
)
from tests.server.rpc.servers import address, channel, grpc_server, image_request, method, refusal
from tests.server_processes import PATIENCE, RunningServer, wait_for


def both_answer(server: RunningServer) -> None:
    """HTTP answers, and gRPC over a connection of its own."""
    assert server.client.post("/v1/classify", content=picture(3)).status_code == 200
    with channel(server) as made:
        assert method(made, "ModelInfer")(image_request(picture(3))).model_name == "auto"


def is_ended(connection: socket.socket) -> bool:
    """Whether the server has closed a connection, or does so in time."""
    connection.settimeout(PATIENCE)
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def test_half_open_connections_are_closed() -> None:
    with grpc_server(client_timeout=1) as server, ExitStack() as stack:
        host, _, port = address(server).rpartition(":")
        silent = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(20)]
        for connection, begun in zip(silent, (b"", PREFACE[:10], b"GET / HTTP/1.1\r\n"), strict=False):
            connection.sendall(begun)
        both_answer(server)
        assert all(is_ended(connection) for connection in silent)


def test_connections_are_bounded() -> None:
    with grpc_server(max_connections=8) as server, ExitStack() as stack:
        held = [stack.enter_context(connect(address(server))) for _ in range(2)]
        assert is_ended(stack.enter_context(connect(address(server))))
        assert server.client.get("/readyz").status_code == 200
        for connection in held:
            connection.close()
        wait_for(lambda: _answers(server))


def _answers(server: RunningServer) -> bool:
    with channel(server) as made:
        try:
            return bool(method(made, "ServerLive")(wire.ServerLiveRequest()).live)
        except grpc.RpcError:
            return False


def test_calls_whose_message_does_not_come() -> None:
    """Some of them say that it is large, and send its beginning."""
    with grpc_server(client_timeout=1) as server, connect(address(server)) as connection:
        for stream in range(1, 200, 2):
            begun = (
                frame(DATA, 0, stream, message(b"\x0a\x04auto", length=1_000_000)) if stream % 4 == 1 else b""
            )
            connection.sendall(frame(HEADERS, END_HEADERS, stream, call_headers("ModelInfer")) + begun)
        wait_for(lambda: server.metric("mass_requests_in_progress") == 100)
        both_answer(server)
        wait_for(lambda: server.metric("mass_requests_in_progress") == 0)
        assert server.metric('mass_rejected_total{reason="client_slow"}') == 100
        both_answer(server)


def test_a_call_without_a_message(rpc_server: RunningServer) -> None:
    with connect(address(rpc_server)) as connection:
        before = rpc_server.metric('mass_requests_total{code="400",protocol="grpc"}')
        connection.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, call_headers("ModelInfer")))
        wait_for(lambda: rpc_server.metric('mass_requests_total{code="400",protocol="grpc"}') == before + 1)


def test_whoever_does_not_read_holds_nobody_up_nor_the_end() -> None:
    with (
        grpc_server(request_timeout=1, drain_seconds=0) as server,
        connect(address(server), window=0) as connection,
    ):
        request = message(image_request(picture(3)).SerializeToString())
        for stream in range(1, 41, 2):
            head = frame(HEADERS, END_HEADERS, stream, call_headers("ModelInfer"))
            connection.sendall(head + frame(DATA, END_STREAM, stream, request))
        wait_for(lambda: server.metric("mass_batch_size_sum") == 20)
        wait_for(lambda: server.metric("mass_held_bytes") == 0)
        both_answer(server)
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0


def too_long() -> wire.ModelInferRequest:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    return wire.ModelInferRequest(model_name="auto", inputs=[tensor], raw_input_contents=[bytes(400_000)])


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("request_of", [too_long, lambda: image_request(bytes(400_000))])
def test_messages_over_the_limit(
    rpc_server: RunningServer,
    rpc: grpc.Channel,
    request_of: Callable[[], wire.ModelInferRequest],
    compression: grpc.Compression,
) -> None:
    """Compressed ones are small when they come."""
    before = rpc_server.metric('mass_requests_total{code="413",protocol="grpc"}')
    error = refusal(method(rpc, "ModelInfer"), request_of(), compression=compression)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()
    wait_for(lambda: rpc_server.metric('mass_requests_total{code="413",protocol="grpc"}') == before + 1)
    both_answer(rpc_server)


def test_images_over_the_limit(rpc: grpc.Channel) -> None:
    error = refusal(method(rpc, "ModelInfer"), image_request(*[picture(3)] * 9))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "holds 9 images, the limit is 8" in error.details()


def test_long_questions_of_a_few_names(rpc: grpc.Channel) -> None:
    error = refusal(method(rpc, "ModelMetadata"), wire.ModelMetadataRequest(name="m" * 70_000))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "more than 65536 bytes" in error.details()
    error = refusal(method(rpc, "ModelMetadata"), wire.ModelMetadataRequest(name="\u26c4" * 500))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert len(error.details()) < 600
