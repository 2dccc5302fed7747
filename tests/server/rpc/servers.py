"""Servers that speak gRPC too, and channels to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from mass_serve.server.rpc import open_inference_pb2 as wire
from mass_serve.server.rpc.schema import SERVICE
from tests.server_processes import RunningServer, running

SMALL_LIMITS: dict[str, Any] = {
    "max_body_bytes": 300_000,
    "max_pixels": 1_000_000,
    "max_images_per_request": 8,
    "queue_images": 64,
    "max_batch_images": 8,
}


@contextmanager
def grpc_server(load_seconds: float = 0.0, **settings: Any) -> Iterator[RunningServer]:
    """A server with a free port for gRPC, which is ready where it loads at once."""
    with running(load_seconds, {"grpc_port": 0, **settings}) as server:
        if not load_seconds:
            server.wait_until_ready()
        yield server


def address(server: RunningServer) -> str:
    """Where a server listens for gRPC."""
    lines = [json.loads(line) for line in server.log().splitlines()]
    found: str = next(line["address"] for line in lines if line["event"] == "gRPC listens")
    return found


@contextmanager
def channel(server: RunningServer, **options: int) -> Iterator[grpc.Channel]:
    """A connection of its own: without that option all channels of a process to an address share one."""
    named = {
        "grpc.use_local_subchannel_pool": 1,
        **{f"grpc.{name}": value for name, value in options.items()},
    }
    with grpc.insecure_channel(address(server), options=list(named.items())) as made:
        yield made


def method(channel: grpc.Channel, name: str) -> grpc.UnaryUnaryMultiCallable:
    """A method of the inference service, by its name."""
    described = SERVICE.methods_by_name[name]
    question: type[Message] = getattr(wire, described.input_type.name)
    answer: type[Message] = getattr(wire, described.output_type.name)
    path = f"/{SERVICE.full_name}/{name}"
    return channel.unary_unary(path, question.SerializeToString, answer.FromString)


def image_request(*images: bytes, model: str = "auto", **rest: Any) -> wire.ModelInferRequest:
    """A request with images in typed contents."""
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "contents": {"bytes_contents": images},
    }
    return wire.ModelInferRequest(model_name=model, inputs=[tensor], **rest)


def refusal(call: grpc.UnaryUnaryMultiCallable, request: Message, **options: Any) -> grpc.RpcError:
    """The error that a call ends with."""
    try:
        call(request, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call was answered")
