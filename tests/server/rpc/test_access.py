"""Keys over gRPC, and what they open."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from mass_serve.server.rpc import open_inference_pb2 as wire
from tests.pictures import picture
from tests.server.rpc.servers import address, channel, grpc_server, image_request, method, refusal
from tests.server_processes import RunningServer


def with_key(text: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {text}"),)


def test_inference_with_a_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right name=team-a\n")
    with grpc_server(inference_keys_file=keys) as server, channel(server) as made:
        infer, request = method(made, "ModelInfer"), image_request(picture(7))
        for metadata in ((), with_key("wrong"), (("authorization", "Basic right"),)):
            error = refusal(infer, request, metadata=metadata)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "X-API-Key" in error.details()
        for metadata in (with_key("right"), (("authorization", "bearer  right"),), (("x-api-key", "right"),)):
            assert infer(request, metadata=metadata).model_name == "auto"
        assert refusal(method(made, "ServerMetadata"), wire.ServerMetadataRequest()).code() is (
            grpc.StatusCode.UNAUTHENTICATED
        )
        _health_needs_none(made)
        assert server.metric('mass_requests_total{code="401",protocol="grpc"}') == 4
        assert server.metric("mass_wrong_keys_total") == 1
        assert server.metric('mass_key_requests_total{key="team-a"}') == 3


def _health_needs_none(made: grpc.Channel) -> None:
    assert method(made, "ServerReady")(wire.ServerReadyRequest()).ready
    assert method(made, "ServerLive")(wire.ServerLiveRequest()).live
    health_pb2_grpc.HealthStub(made).Check(health_pb2.HealthCheckRequest())


def test_the_repository_for_an_admin(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("admins\n")
    with (
        grpc_server(admin_keys_file=keys) as server,
        triton.InferenceServerClient(address(server)) as client,
    ):
        headers = {"authorization": "Bearer admins"}
        assert "model_repository" in client.get_server_metadata().extensions
        listed = client.get_model_repository_index(headers=headers).models
        assert {model.name: model.state for model in listed} == dict.fromkeys(
            ("auto", "digits", "signs"), "READY"
        )
        client.load_model("auto", headers=headers)
        with pytest.raises(InferenceServerException, match="send no parameters"):
            client.load_model("auto", headers=headers, config="{}")
        with pytest.raises(InferenceServerException, match="unload a task"):
            client.unload_model("auto", headers=headers)
        with pytest.raises(InferenceServerException, match="An admin key is needed"):
            client.get_model_repository_index()


def test_the_repository_is_closed_without_admins(rpc_server: RunningServer) -> None:
    with (
        triton.InferenceServerClient(address(rpc_server)) as client,
        pytest.raises(InferenceServerException, match="The repository is closed") as told,
    ):
        client.load_model("digits")
    assert told.value.status() == "StatusCode.NOT_FOUND"
