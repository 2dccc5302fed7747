"""Spans that reach a collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.pictures import picture
from tests.server_processes import PATIENCE, StartServer


class Collector(ThreadingHTTPServer):
    """Takes what an exporter posts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []

    def spans(self) -> list[dict[str, Any]]:
        """Name, service and attributes of every span."""
        found = []
        for body in self.bodies:
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            for resource in request.resource_spans:
                service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        attributes = {a.key: a.value for a in span.attributes}
                        found.append({"name": span.name, "service": service, "attributes": attributes})
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


def test_requests_are_spans_with_their_stages_and_without_headers(
    start_server: StartServer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
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
