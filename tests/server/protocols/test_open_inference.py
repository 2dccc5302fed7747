"""The Open Inference Protocol, spoken by Triton's own client to a real server, and byte by byte."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.pictures import picture
from tests.server.fakes import SLOW, STRANGE
from tests.server.protocols.test_native import refused
from tests.server_processes import RunningServer

JSON_LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def client(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=20)
    yield client
    client.close()


def image_input(*images: bytes) -> triton.InferInput:
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_))
    return tensor


def post(server: RunningServer, body: Any, model: str = "auto", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.client.post(f"/v2/models/{model}/infer", content=content, headers=headers)


def as_json(*images: bytes, **rest: Any) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "image", "shape": [len(images)], "datatype": "BYTES", "data": data}], **rest}


def outputs(response: httpx.Response) -> dict[str, list[Any]]:
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


class TestTheClient:
    def test_health_and_metadata(self, client: triton.InferenceServerClient) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("auto")
        assert client.is_model_ready("digits", "r1")
        assert not client.is_model_ready("cars")
        assert client.get_server_metadata()["name"] == "mass-serve"
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        auto = client.get_model_metadata("auto")
        assert (auto["name"], auto["versions"]) == ("auto", ["fake-1"])
        assert {tensor["name"] for tensor in auto["inputs"]} == {"image", "pixel_values"}
        assert {tensor["name"] for tensor in auto["outputs"]} >= {"label", "task", "score", "residuals"}
        signs = client.get_model_metadata("signs")
        assert signs["versions"] == ["r1"]
        assert "residuals" not in {tensor["name"] for tensor in signs["outputs"]}
        assert client.get_model_config("signs")["max_batch_size"] == 8

    def test_binary_in_and_out(self, client: triton.InferenceServerClient) -> None:
        result = client.infer("auto", [image_input(picture(7), picture(9))], request_id="r-1")
        assert result.as_numpy("label").tolist() == [b"7", b"9"]
        assert result.as_numpy("task").tolist() == [b"digits", b"digits"]
        np.testing.assert_allclose(result.as_numpy("score"), [0.9, 0.9], rtol=1e-6)
        answer = result.get_response()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("r-1", "auto", "fake-1")

    def test_chosen_outputs_some_of_them_json(self, client: triton.InferenceServerClient) -> None:
        wanted = [
            triton.InferRequestedOutput("probabilities", binary_data=True),
            triton.InferRequestedOutput("residuals", binary_data=False),
            triton.InferRequestedOutput("label", binary_data=True),
        ]
        result = client.infer("auto", [image_input(picture(7), picture(9))], outputs=wanted)
        probabilities = result.as_numpy("probabilities")
        assert probabilities.shape == (2, 256)
        assert probabilities.argmax(1).tolist() == [7, 9]
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
        assert result.as_numpy("residuals").tolist() == [[3.0, 4.0], [3.0, 4.0]]
        assert result.as_numpy("label").tolist() == [b"7", b"9"]
        assert result.as_numpy("score") is None

    @pytest.mark.parametrize("binary", [True, False])
    def test_images_that_no_task_covers(self, client: triton.InferenceServerClient, binary: bool) -> None:
        wanted = [triton.InferRequestedOutput("unrouted", binary_data=binary)]
        images = image_input(picture(7), picture(9, green=STRANGE))
        assert client.infer("auto", [images], outputs=wanted).as_numpy("unrouted").tolist() == [False, True]
        assert client.infer("signs", [images], outputs=wanted).as_numpy("unrouted").tolist() == [False, False]

    def test_a_named_task_without_routing(self, client: triton.InferenceServerClient) -> None:
        result = client.infer("signs", [image_input(picture(3))])
        assert result.as_numpy("task").tolist() == [b"signs"]
        assert result.get_response()["model_version"] == "r1"
        with pytest.raises(InferenceServerException, match="no residuals where the task is named"):
            client.infer(
                "signs", [image_input(picture(3))], outputs=[triton.InferRequestedOutput("residuals")]
            )

    @pytest.mark.parametrize("binary", [True, False])
    def test_classification_strings(self, client: triton.InferenceServerClient, binary: bool) -> None:
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
        result = client.infer("auto", [image_input(picture(7), picture(9))], outputs=wanted)
        rows = result.as_numpy("probabilities")
        assert rows.shape == (2, 2)
        texts = [[text.decode() if isinstance(text, bytes) else text for text in row] for row in rows]
        assert [row[0].split(":")[1:] for row in texts] == [["7", "7"], ["9", "9"]]
        assert float(texts[0][0].split(":")[0]) == pytest.approx(0.9, abs=1e-5)

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
    def test_pixels_that_the_caller_prepared(
        self, client: triton.InferenceServerClient, datatype: str, binary: bool
    ) -> None:
        """The fake engine reads the corner: uint8 as it is, float32 as the whole part."""
        pixels = np.zeros((2, 8, 8, 3), np.uint8)
        pixels[0, ..., 0], pixels[1, ..., 0] = 7, 9
        values = pixels if datatype == "UINT8" else pixels.transpose(0, 3, 1, 2).astype(np.float32)
        tensor = triton.InferInput("pixel_values", list(values.shape), datatype)
        tensor.set_data_from_numpy(np.ascontiguousarray(values), binary_data=binary)
        assert client.infer("auto", [tensor]).as_numpy("label").tolist() == [b"7", b"9"]

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_compressed_requests(self, client: triton.InferenceServerClient, algorithm: str) -> None:
        result = client.infer("auto", [image_input(picture(7))], request_compression_algorithm=algorithm)
        assert result.as_numpy("label").tolist() == [b"7"]

    def test_errors_are_shown(self, client: triton.InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match="There is no model 'cars'"):
            client.infer("cars", [image_input(picture(7))])
        with pytest.raises(InferenceServerException, match="Version 'r9' of 'signs' is not served"):
            client.infer("signs", [image_input(picture(7))], model_version="r9")
        with pytest.raises(InferenceServerException, match="not an image"):
            client.infer("auto", [image_input(b"nothing like an image")])

    def test_a_timeout_of_its_own(self, client: triton.InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match=r"no answer within 0.2 seconds"):
            client.infer("auto", [image_input(picture(1, SLOW))], timeout=200_000)


class TestJson:
    def test_flat_and_nested_data(self, server: RunningServer) -> None:
        assert outputs(post(server, as_json(picture(7), id="a")))["label"] == ["7"]
        body = as_json(picture(7), picture(9))
        body["inputs"][0]["data"] = [[text] for text in body["inputs"][0]["data"]]
        body["inputs"][0]["shape"] = [2, 1]
        response = post(server, body)
        assert outputs(response)["label"] == ["7", "9"]
        assert response.json()["outputs"][0]["shape"] == [2, 1]
        assert "id" not in response.json()

    def test_parameters_of_null(self, server: RunningServer) -> None:
        body = as_json(picture(7), parameters=None, outputs=[{"name": "label", "parameters": None}])
        body["inputs"][0]["parameters"] = None
        assert outputs(post(server, body)) == {"label": ["7"]}

    def test_the_versioned_path(self, server: RunningServer) -> None:
        response = server.client.post("/v2/models/signs/versions/r1/infer", json=as_json(picture(7)))
        assert outputs(response)["task"] == ["signs"]

    def test_models_and_metadata_paths(self, server: RunningServer) -> None:
        get = server.client.get
        assert get("/v2").json() == get("/v2/").json()
        assert get("/v2/models").json() == {"models": ["auto", "digits", "signs"]}
        assert get("/v2/models/signs/versions/r1").json()["name"] == "signs"
        assert get("/v2/health/live").json() == {"live": True}
        assert get("/v2/health/ready").json() == {"ready": True, "live": True}
        refused(get("/v2/models/cars"), 404, "'cars'", "/v2/models")
        refused(get("/v2/models/signs/versions/r2"), 404, "'r2'", "'r1'")

    def test_requests_are_counted_and_probes_are_not(self, server: RunningServer) -> None:
        sample = 'mass_requests_total{code="200",protocol="v2"}'
        before = server.metric(sample)
        post(server, as_json(picture(7)))
        server.client.get("/v2/health/live")
        assert server.metric(sample) == before + 1


def binary(head: dict[str, Any], data: bytes) -> tuple[bytes, str]:
    text = json.dumps(head).encode()
    return text + data, str(len(text))


def one_input(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGVsbG8="]}
    return {"inputs": [{key: value for key, value in (tensor | changes).items() if value is not None}]}


class TestBadRequests:
    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            (b"", 400, "JSON"),
            (b"{", 400, "JSON"),
            ({"inputs": []}, 400, "one input"),
            (one_input(), 415, "not an image"),
            (one_input(data=None), 400, "binary_data_size"),
            (one_input(data=["%%"]), 400, "data[0] is not base64"),
            (one_input(data=[5]), 400, "must be strings"),
            (one_input(shape=[2]), 400, "1 elements"),
            (one_input(shape=[0]), 400, "no image"),
            (one_input(shape=[]), 400, "no image"),
            (one_input(shape=[-1]), 400, "shape[0]"),
            (one_input(shape=[1 << 32]), 413, "the limit is 8"),
            (one_input(datatype="FP16"), 400, "'image' BYTES [N]"),
            (one_input(name="pixels"), 400, "'pixel_values'"),
            (one_input(parameters={"binary_data_size": 4}), 400, "either"),
            (one_input(data=None, parameters={"binary_data_size": 4}), 400, "0 bytes follow"),
            ({**one_input(), "outputs": [{"name": "logits"}]}, 400, "no output 'logits'"),
            (
                {**one_input(), "outputs": [{"name": "task", "parameters": {"classification": 2}}]},
                400,
                "not of 'task'",
            ),
            (
                {**one_input(), "outputs": [{"name": "label", "parameters": {"classification": 0}}]},
                400,
                "between 1 and 1000",
            ),
            ({**one_input(), "parameters": {"timeout": -1}}, 400, "timeout"),
            ({**one_input(), "outputs": [{"name": "label"}] * 2}, 400, "'label' is asked for twice"),
            (one_input(data=[[], "aGVsbG8="]), 400, "must be strings"),
            (one_input(data=[None]), 400, "must be strings"),
        ],
    )
    def test_json(self, server: RunningServer, body: Any, status: int, words: str) -> None:
        refused(post(server, body), status, words)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ([0.5] * 192, "whole numbers of 0 to 255"),
            ([256] * 192, "whole numbers of 0 to 255"),
            ([None] * 192, "must be numbers"),
            ([1] * 191, "191 elements"),
            ([[1], [1, 2]], "flat or nested evenly"),
            (["a"] * 192, "must be numbers"),
        ],
    )
    def test_pixels_in_json(self, server: RunningServer, data: list[Any], words: str) -> None:
        body = one_input(name="pixel_values", datatype="UINT8", shape=[1, 8, 8, 3], data=data)
        refused(post(server, body), 400, words)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
    def test_pixels_that_would_overflow(self, server: RunningServer, value: float) -> None:
        data = np.full((1, 3, 8, 8), value, "<f4").tobytes()
        head = one_input(
            name="pixel_values",
            datatype="FP32",
            shape=[1, 3, 8, 8],
            data=None,
            parameters={"binary_data_size": len(data)},
        )
        content, length = binary(head, data)
        refused(post(server, content, **{JSON_LENGTH: length}), 400, "finite")

    def test_pixels_of_another_size(self, server: RunningServer) -> None:
        body = one_input(name="pixel_values", datatype="UINT8", shape=[1, 4, 4, 3], data=[1] * 48)
        refused(post(server, body), 400, "8 pixels wide and high")

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"\x01\x00\x00", "cut off"),
            (struct.pack("<I", 9) + b"short", "cut off"),
            (struct.pack("<I", 0xFFFFFFFF), "cut off"),
            (struct.pack("<I", 1) + b"a" + struct.pack("<I", 1) + b"b", "2 elements"),
        ],
    )
    def test_broken_strings(self, server: RunningServer, data: bytes, words: str) -> None:
        head = one_input(data=None, parameters={"binary_data_size": len(data)})
        content, length = binary(head, data)
        refused(post(server, content, **{JSON_LENGTH: length}), 400, words)

    @pytest.mark.parametrize("length", ["-1", "abc", "999999", "9" * 40, "²"])
    def test_a_wrong_json_length(self, server: RunningServer, length: str) -> None:
        response = server.client.post(
            "/v2/models/auto/infer",
            content=json.dumps(as_json(picture(1))).encode(),
            headers=[(JSON_LENGTH.encode(), length.encode("latin-1"))],
        )
        refused(response, 400, JSON_LENGTH)

    @pytest.mark.parametrize(
        ("encoding", "content", "status", "words"),
        [
            ("br", b"{}", 415, "'br'"),
            ("gzip", b"not gzip", 400, "not valid gzip"),
            ("gzip", gzip.compress(b"{}", mtime=0)[:-9], 400, "cut off"),
            ("deflate", zlib.compress(bytes(64 << 20)), 413, "unpacks to more than"),
            ("gzip", gzip.compress(b"{}", mtime=0) + b"garbage", 400, "not valid gzip"),
            ("gzip", gzip.compress(b"", mtime=0) * 2000, 400, "1000 gzip files"),
            # Every element is wrong, and one error is enough.
            ("gzip", gzip.compress(b'{"inputs":[' + b"1," * 50_000 + b"1]}", mtime=0), 400, "inputs[0]"),
        ],
    )
    def test_content_encodings(
        self, server: RunningServer, encoding: str, content: bytes, status: int, words: str
    ) -> None:
        refused(post(server, content, **{"Content-Encoding": encoding}), status, words)

    def test_files_in_a_row_are_one_body(self, server: RunningServer) -> None:
        text = json.dumps(as_json(picture(7))).encode()
        content = gzip.compress(text[:50]) + gzip.compress(text[50:])
        assert outputs(post(server, content, **{"Content-Encoding": "gzip"}))["label"] == ["7"]

    def test_the_server_is_well_afterwards(self, server: RunningServer) -> None:
        assert outputs(post(server, as_json(picture(7))))["label"] == ["7"]
