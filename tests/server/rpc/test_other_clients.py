"""Clients that know nothing of the protocol: of gRPC's health, and those that ask for the schema first."""

from __future__ import annotations

import json
import subprocess
import sys

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.pictures import picture
from tests.server.rpc.servers import address
from tests.server_processes import PATIENCE, ROOT, RunningServer


def test_health(rpc: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(rpc)
    for service in ("", "inference.GRPCInferenceService"):
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=service))
        # Perhaps once NOT_SERVING, where the server became ready only now.
        assert any(told.status == health_pb2.HealthCheckResponse.SERVING for told in watching)
        watching.cancel()
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_client_with_no_schema_of_its_own(rpc: grpc.Channel) -> None:
    """As grpcurl does it: services, methods and messages from the server, and then a call."""
    database = ProtoReflectionDescriptorDatabase(rpc)
    assert set(database.get_services()) == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    pool = DescriptorPool(database)
    infer = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    question, answer = (GetMessageClass(of) for of in (infer.input_type, infer.output_type))
    contents = {"bytes_contents": [picture(7)]}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": contents}
    call = rpc.unary_unary(
        f"/{infer.containing_service.full_name}/{infer.name}", question.SerializeToString, answer.FromString
    )
    outputs = call(question(model_name="auto", inputs=[tensor])).outputs
    assert {output.name: list(output.contents.bytes_contents) for output in outputs}["label"] == [b"7"]


@pytest.mark.optional("kserve")
def test_kserves_client(rpc_server: RunningServer) -> None:
    # Some of what it imports warns of its own past.
    command = [sys.executable, "-W", "ignore", "-m", "tests.server.rpc.kserve_client", address(rpc_server)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=True)
    assert json.loads(done.stdout) == {
        "health": [True, True, True],
        "raw": ["7", "9"],
        "typed": ["7", "9"],
    }
