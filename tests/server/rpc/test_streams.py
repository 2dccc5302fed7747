"""Streams of requests: Triton's client, unmodified, and what a stream may not do to others."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from mass_serve.server.rpc import open_inference_pb2 as wire
from mass_serve.server.rpc.room import MOST_STREAMS_OF_ONE
from mass_serve.server.rpc.schema import SERVICE
from mass_serve.server.rpc.streams import MOST_AHEAD
from tests.pictures import picture
from tests.server.fakes import FAIL, SLOW
from tests.server.rpc.servers import SMALL_LIMITS, address, channel, grpc_server, image_request
from tests.server.rpc.test_triton_client import image_input
from tests.server_processes import PATIENCE, RunningServer, wait_for

PATH = f"/{SERVICE.full_name}/ModelStreamInfer"
MALFORMED = b"\xff"
Told = tuple[triton.InferResult | None, InferenceServerException | None]
Send = Callable[..., None]


@contextmanager
def stream(server: RunningServer, **options: Any) -> Iterator[tuple[Send, Callable[[], Told]]]:
    """Sends requests for images on a stream of Triton's client, and takes up what it is told."""
    told: queue.Queue[Told] = queue.Queue()
    with triton.InferenceServerClient(address(server)) as client:
        client.start_stream(lambda result, error: told.put((result, error)), **options)

        def send(*images: bytes, model: str = "auto", request_id: str = "") -> None:
            client.async_stream_infer(model, [image_input(*images)], request_id=request_id)

        yield send, lambda: told.get(timeout=PATIENCE)
        client.stop_stream()


def test_many_requests_are_answered_in_their_order(rpc_server: RunningServer) -> None:
    """More at once than the queue has places: those wait, and none is refused."""
    number = 2 * SMALL_LIMITS["queue_images"]
    before = rpc_server.metric('mass_requests_total{code="200",protocol="grpc"}')
    with stream(rpc_server) as (send, told):
        for n in range(number):
            send(picture(n), request_id=f"r-{n}")
        for n in range(number):
            result, error = told()
            assert error is None
            assert result is not None
            assert result.as_numpy("label").tolist() == [str(n).encode()]
            assert result.get_response().id == f"r-{n}"
    assert rpc_server.metric('mass_requests_total{code="200",protocol="grpc"}') == before + number
    assert rpc_server.metric("mass_held_bytes") == 0


def test_what_is_wrong_is_told_in_its_place_and_the_stream_goes_on(rpc_server: RunningServer) -> None:
    with stream(rpc_server) as (send, told):
        # Neither picture may share the batch that fails: all of it are told so.
        send(picture(1))
        answers = [told()]
        send(b"no image")
        send(picture(1), model="nothing")
        send(picture(1, green=FAIL))
        answers += [told() for _ in range(3)]
        send(picture(2))
        answers.append(told())
    says = [str(error) for _, error in answers]
    assert says[0] == says[4] == "None"
    for said, expected in zip(says[1:4], ("image", "There is no model 'nothing'", "batch"), strict=True):
        assert expected in said
    last = answers[4][0]
    assert last is not None
    assert last.as_numpy("label").tolist() == [b"2"]


def test_a_key_opens_a_stream_and_its_rate_paces_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right name=job rate=8\n")
    with grpc_server(inference_keys_file=keys, **SMALL_LIMITS) as server:
        with stream(server, headers={"x-api-key": "wrong"}) as (_, told):
            _, error = told()
        assert "UNAUTHENTICATED" in str(error)
        with stream(server, headers={"x-api-key": "right"}) as (send, told):
            started = time.monotonic()
            for n in range(24):
                send(picture(n))
            assert [told()[1] for _ in range(24)] == [None] * 24
            # One second's worth at once, and another on credit.
            assert time.monotonic() - started > 24 / 8 - 2
        assert server.metric('mass_rejected_total{reason="rate"}') == 0
        assert "mass_key_rate_limited_total{" not in server.client.get("/metrics").text, "none was refused"
        assert server.metric('mass_key_requests_total{key="job"}') == 24


def test_one_caller_may_have_a_few_streams(rpc_server: RunningServer) -> None:
    with ExitStack() as open_streams:
        for _ in range(MOST_STREAMS_OF_ONE):
            send, told = open_streams.enter_context(stream(rpc_server))
            send(picture(1))
            assert told()[1] is None
        with stream(rpc_server) as (_, told):
            _, error = told()
        assert "RESOURCE_EXHAUSTED" in str(error)
        assert "Too many streams" in str(error)


def call(made: grpc.Channel) -> grpc.StreamStreamMultiCallable:
    return made.stream_stream(
        PATH,
        wire.ModelInferRequest.SerializeToString,
        wire.ModelStreamInferResponse.FromString,
    )


def test_no_more_is_read_than_is_answered(rpc_server: RunningServer) -> None:
    """A client that sends for ever is made to wait, so that the server does not have to keep it all."""
    sent, enough = 0, threading.Event()

    def requests() -> Iterator[wire.ModelInferRequest]:
        nonlocal sent
        while not enough.is_set():
            sent += 1
            yield image_request(picture(1, green=SLOW), *[picture(1, size=(64, 64))] * 7)

    with channel(rpc_server) as made:
        answers = call(made)(requests())
        next(answers)
        wait_for(lambda: sent > 2 * MOST_AHEAD)
        for _ in range(5):
            assert rpc_server.metric("mass_requests_in_progress") <= MOST_AHEAD
        enough.set()
        answers.cancel()
    wait_for(lambda: rpc_server.metric("mass_held_bytes") == 0)
    wait_for(lambda: rpc_server.metric("mass_requests_in_progress") == 0)


def test_whoever_does_not_read_keeps_no_stream() -> None:
    """Its place would be taken from all others for as long as it likes."""
    with grpc_server(client_timeout=1) as server:
        with channel(server, **{"http2.bdp_probe": 0}) as made, ExitStack() as others:
            answers = made.stream_stream(PATH)(repeat(MALFORMED, 20_000), timeout=PATIENCE)  # and reads none
            wait_for(lambda: server.metric('mass_requests_total{code="408",protocol="grpc"}') == 1)
            for _ in range(MOST_STREAMS_OF_ONE):
                send, told = others.enter_context(stream(server))
                send(picture(1))
                assert told()[1] is None
            with pytest.raises(grpc.RpcError, match="not taken up within 1 seconds"):
                list(answers)
        assert server.metric('mass_rejected_total{reason="client_slow"}') == 1
        assert "unexpected" not in server.log()
        assert "Traceback" not in server.log()


def test_whoever_ends_a_stream_is_told_of_as_gone(rpc_server: RunningServer) -> None:
    gone = 'mass_requests_total{code="499",protocol="grpc"}'
    before = rpc_server.metric(gone)
    with channel(rpc_server) as made:
        answers = call(made)(iter([image_request(picture(1, green=SLOW))]))
        wait_for(lambda: rpc_server.metric("mass_requests_in_progress") == 1)
        answers.cancel()
    wait_for(lambda: rpc_server.metric(gone) == before + 1)


def test_an_idle_stream_is_ended() -> None:
    with grpc_server(idle_timeout=0.5) as server, stream(server) as (send, told):
        send(picture(1))
        assert told()[1] is None
        assert "no message for 0.5 seconds" in str(told()[1])


def test_a_drain_ends_a_stream_that_never_pauses() -> None:
    with grpc_server(drain_seconds=0) as server, channel(server) as made:
        answers = made.stream_stream(PATH)(repeat(MALFORMED), timeout=PATIENCE)
        next(answers)
        server.process.terminate()
        # What is still on its way to a server that is gone takes the sentence away, now and then.
        with pytest.raises(grpc.RpcError):
            for _ in answers:
                pass
        assert server.process.wait(PATIENCE) == 0


def test_a_drain_answers_what_came_and_ends_the_stream() -> None:
    with grpc_server(drain_seconds=0) as server:
        with stream(server) as (send, told):
            send(picture(1, green=SLOW))
            wait_for(lambda: server.metric("mass_requests_in_progress") == 1)
            server.process.terminate()
            assert told()[1] is None
            assert "shutting down" in str(told()[1])
        assert server.process.wait(PATIENCE) == 0
