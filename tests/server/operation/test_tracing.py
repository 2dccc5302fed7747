"""Spans that reach a collector."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mass_serve.server.rpc import open_inference_pb2 as wire
from mass_serve.server.serving.request_context import sane_trace_id
from tests.pictures import picture
from tests.server.fakes import FAIL
from tests.server.rpc.servers import channel, grpc_server, image_request, method, refusal
from tests.server_processes import PATIENCE, StartServer


class Collector(ThreadingHTTPServer):
    """Takes what an exporter posts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []

    def spans(self) -> list[dict[str, Any]]:
        """What every span says."""
        found = []
        for body in self.bodies:
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            for resource in request.resource_spans:
                service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        attributes = {a.key: a.value for a in span.attributes}
                        told = {"attributes": attributes, "trace": span.trace_id.hex(), "span": span.span_id}
                        told |= {"parent": span.parent_span_id.hex(), "code": span.status.code}
                        found.append({"name": span.name, "service": service, **told})
        return found


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def _collected(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")


@pytest.mark.usefixtures("_collected")
def test_requests_are_spans_with_their_stages_and_without_headers(
    start_server: StartServer, collector: Collector
) -> None:
    server = start_server(tracing=True, drain_seconds=0)
    server.wait_until_ready()
    headers = {"X-Request-Id": "find-me", "Authorization": "Bearer secret"}
    assert server.client.post("/v1/classify", content=picture(1), headers=headers).status_code == 200
    assert server.client.get("/v1/tasks/nothing").status_code == 404
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0, "the last spans are sent at the end"
    spans = {span["name"]: span for span in collector.spans()}
    assert spans.keys() == {"POST /v1/classify", "GET /v1/tasks/{name}"}, "probes are not traced"
    span = spans["POST /v1/classify"]
    assert span["service"] == "mass-serve"
    attributes = span["attributes"]
    assert attributes["mass.request_id"].string_value == "find-me"
    assert attributes["mass.images"].int_value == 1
    for stage in ("decode", "queue", "first_pass", "second_pass"):
        assert attributes[f"mass.{stage}_seconds"].double_value >= 0
    assert b"secret" not in b"".join(collector.bodies)


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
INFER = "inference.GRPCInferenceService/ModelInfer"


@pytest.mark.usefixtures("_collected")
def test_calls_of_grpc_are_spans_of_the_callers_trace(collector: Collector) -> None:
    with grpc_server(tracing=True, drain_seconds=0) as server:
        with channel(server) as made:
            infer = method(made, "ModelInfer")
            infer(image_request(picture(1)), metadata=(("traceparent", TRACEPARENT), ("x-api-key", "secret")))
            assert refusal(infer, image_request(picture(1, green=FAIL))).code() is grpc.StatusCode.INTERNAL
            refusal(infer, image_request(picture(1), model="nothing"))
            method(made, "ServerLive")(wire.ServerLiveRequest())
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
        lines = [json.loads(line) for line in server.log().splitlines()]
    answered, failed, unknown = (span for span in collector.spans() if span["name"] == INFER)
    assert len(collector.spans()) == 3, "probes are not traced"
    assert (answered["trace"], answered["parent"]) == (TRACE, PARENT)
    assert failed["trace"] not in (TRACE, unknown["trace"])
    codes = [span["attributes"]["rpc.grpc.status_code"].int_value for span in (answered, failed, unknown)]
    assert codes == [grpc.StatusCode[name].value[0] for name in ("OK", "INTERNAL", "NOT_FOUND")]
    assert [span["code"] for span in (answered, failed, unknown)] == [0, 2, 0]
    attributes = answered["attributes"]
    assert attributes["rpc.method"].string_value == "ModelInfer"
    assert attributes["mass.images"].int_value == 1
    assert attributes["mass.decode_seconds"].double_value > 0
    assert b"secret" not in b"".join(collector.bodies)
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["trace_id"] for line in requests] == [span["trace"] for span in (answered, failed, unknown)]
    assert requests[0]["span_id"] == answered["span"].hex()


@pytest.mark.usefixtures("_collected")
def test_log_lines_name_the_trace_and_the_span_of_their_request(
    start_server: StartServer, collector: Collector
) -> None:
    server = start_server(tracing=True, drain_seconds=0)
    server.wait_until_ready()
    server.client.get("/v1/tasks", headers={"traceparent": TRACEPARENT})
    server.client.get("/v1/tasks")
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0
    lines = [json.loads(line) for line in server.log().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    spans = collector.spans()
    assert [line["trace_id"] for line in requests] == [span["trace"] for span in spans]
    assert [line["span_id"] for line in requests] == [span["span"].hex() for span in spans]
    assert requests[0]["trace_id"] == TRACE
    assert all("trace_id" not in line for line in lines if line["event"] != "request")


@pytest.mark.parametrize(
    ("traceparent", "trace"),
    [
        (TRACEPARENT, TRACE),
        (f"01-{TRACE}-{PARENT}-00-more", TRACE),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (TRACEPARENT.upper(), None),
        ("00-" + "a" * 10_000, None),
        ("", None),
    ],
)
def test_a_callers_trace_is_logged_without_tracing(traceparent: str, trace: str | None) -> None:
    assert sane_trace_id(traceparent) == trace


def test_a_server_without_tracing_logs_the_callers_trace() -> None:
    with grpc_server() as server:
        server.client.get("/v1/tasks", headers={"traceparent": TRACEPARENT})
        server.client.post(
            "/v1/classify", content=picture(1, green=FAIL), headers={"traceparent": TRACEPARENT}
        )
        with channel(server) as made:
            method(made, "ModelInfer")(image_request(picture(1)), metadata=(("traceparent", TRACEPARENT),))
        requests = [json.loads(line) for line in server.log().splitlines() if '"request"' in line]
    assert [line["trace_id"] for line in requests] == [TRACE] * 3
