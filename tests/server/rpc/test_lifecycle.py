"""Loading, overload, deadlines, cancelling, draining and death, as gRPC's clients see them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mass_serve.server.rpc import open_inference_pb2 as wire
from tests.pictures import picture
from tests.server.fakes import DIE, FAIL, SLOW, SLOW_SECONDS
from tests.server.rpc.servers import channel, grpc_server, image_request, method, refusal
from tests.server_processes import PATIENCE, ROOT, RunningServer, wait_for

SLOW_REQUEST = image_request(picture(1, green=SLOW))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(made: grpc.Channel) -> int:
    status: int = health_pb2_grpc.HealthStub(made).Check(health_pb2.HealthCheckRequest()).status
    return status


def requests(server: RunningServer, code: int) -> float:
    return server.metric(f'mass_requests_total{{code="{code}",protocol="grpc"}}')


def test_alive_but_not_ready_while_loading() -> None:
    with grpc_server(load_seconds=60, drain_seconds=0) as server:
        wait_for(lambda: '"gRPC listens"' in server.log())
        with channel(server) as made:
            assert method(made, "ServerLive")(wire.ServerLiveRequest()).live
            assert not method(made, "ServerReady")(wire.ServerReadyRequest()).ready
            assert health(made) == NOT_SERVING
            error = refusal(method(made, "ModelInfer"), image_request(picture(1)))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "still loading" in error.details()
            assert dict(error.trailing_metadata())["retry-after"] == "2"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0


def test_a_full_queue_says_when_to_come_back_and_a_cancelled_call_frees_it() -> None:
    with (
        grpc_server(max_batch_images=1, queue_images=1, max_images_per_request=1) as server,
        channel(server) as made,
    ):
        infer = method(made, "ModelInfer")
        infer(image_request(picture(1)))  # the worker processes have started by then
        running = infer.future(SLOW_REQUEST)
        wait_for(lambda: server.metric("mass_requests_in_progress") == 1)
        time.sleep(SLOW_SECONDS / 5)  # it is on the device by now
        waiting = infer.future(image_request(picture(2)))
        wait_for(lambda: server.metric("mass_queue_depth") == 1)
        error = refusal(infer, image_request(picture(3)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "queue is full" in error.details()
        _tells_when_to_come_back(error)
        assert not running.done()
        waiting.cancel()
        wait_for(lambda: server.metric("mass_queue_depth") == 0)
        assert server.metric('mass_rejected_total{reason="client_gone"}') == 1
        assert running.result().model_name == "auto"


def _tells_when_to_come_back(error: grpc.RpcError) -> None:
    metadata = dict(error.trailing_metadata())
    assert (metadata["retry-after"], metadata["grpc-retry-pushback-ms"]) == ("1", "1000")
    status = Status.FromString(metadata["grpc-status-details-bin"])
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert (status.code, retry.retry_delay.seconds) == (error.code().value[0], 1)


def test_deadlines_of_the_server_and_of_a_caller() -> None:
    with (
        grpc_server(max_batch_images=1, request_timeout=1.5 * SLOW_SECONDS) as server,
        channel(server) as made,
    ):
        infer = method(made, "ModelInfer")
        ended = [call.exception() for call in [infer.future(SLOW_REQUEST) for _ in range(2)]]
        (late,) = [error for error in ended if error is not None]
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "within 1.5 seconds" in late.details()
        error = refusal(infer, SLOW_REQUEST, timeout=SLOW_SECONDS / 5)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for(lambda: requests(server, 504) == 2)
        assert server.metric('mass_rejected_total{reason="deadline"}') == 2


def test_the_end_waits_for_what_was_accepted() -> None:
    with grpc_server(max_batch_images=1, drain_seconds=0) as server, channel(server) as made:
        infer = method(made, "ModelInfer")
        # Whoever watches the health, which has no end, does not hold the server's end up.
        watching = health_pb2_grpc.HealthStub(made).Watch(health_pb2.HealthCheckRequest())
        assert any(told.status == SERVING for told in watching)
        accepted = [infer.future(SLOW_REQUEST) for _ in range(3)]
        wait_for(lambda: server.metric("mass_requests_in_progress") == 3)
        server.process.send_signal(signal.SIGTERM)
        assert next(watching).status == NOT_SERVING
        assert [call.result().model_name for call in accepted] == ["auto"] * 3
        assert server.process.wait(PATIENCE) == 0


def test_the_grace_period_serves_on() -> None:
    with grpc_server(drain_seconds=2) as server, channel(server) as made:
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: health(made) == NOT_SERVING)
        assert not method(made, "ServerReady")(wire.ServerReadyRequest()).ready
        assert method(made, "ModelInfer")(image_request(picture(1))).model_name == "auto"
        assert server.process.wait(PATIENCE) == 0


def test_a_dead_worker_fails_all_at_once_and_ends_the_process() -> None:
    with grpc_server(max_batch_images=1) as server, channel(server) as made:
        infer = method(made, "ModelInfer")
        with ThreadPoolExecutor(4) as pool:
            running = pool.submit(infer, SLOW_REQUEST)
            time.sleep(0.1)
            fatal = pool.submit(refusal, infer, image_request(picture(1, green=DIE)))
            time.sleep(0.1)
            waiting = [pool.submit(refusal, infer, SLOW_REQUEST) for _ in range(2)]
            assert running.result().model_name == "auto"
            for future in (fatal, *waiting):
                assert future.result().code() is grpc.StatusCode.UNAVAILABLE
        assert not method(made, "ServerLive")(wire.ServerLiveRequest()).live
        assert server.process.wait(PATIENCE) == 1


def test_a_failed_batch_is_told_and_logged_with_its_id(rpc_server: RunningServer, rpc: grpc.Channel) -> None:
    metadata = (("x-request-id", "mine-1"),)
    error = refusal(method(rpc, "ModelInfer"), image_request(picture(1, green=FAIL)), metadata=metadata)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert dict(error.trailing_metadata())["x-request-id"] == "mine-1"
    lines = [json.loads(line) for line in rpc_server.log().splitlines()]
    (logged,) = [line for line in lines if line.get("request_id") == "mine-1" and line["event"] == "request"]
    assert (logged["method"], logged["status"]) == ("inference.GRPCInferenceService/ModelInfer", 500)


def test_a_request_without_a_sane_id_is_given_one(rpc: grpc.Channel) -> None:
    for metadata in ((), (("x-request-id", "no sane id"),)):
        _, call = method(rpc, "ModelInfer").with_call(image_request(picture(1)), metadata=metadata)
        assert len(dict(call.trailing_metadata())["x-request-id"]) == 32


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mass_serve.cli", "serve", "--port", "0", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False)


def test_a_port_that_is_taken_ends_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--grpc-port", str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}; choose another --grpc-port" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_its_packages_the_start_says_what_to_install() -> None:
    code = "import sys; sys.modules['grpc'] = None; from mass_serve.cli.__main__ import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--grpc-port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: grpc_port: grpc is not installed; install 'mass-serve[grpc]'\n"
