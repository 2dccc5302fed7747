"""The HTTP interface of a real server process: the three forms, and what bad input gets."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

import httpx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mass_serve import __version__
from mass_serve.engine import Alternative, Classification
from mass_serve.server.protocols.results import image_result
from tests.pictures import bomb, picture
from tests.server.fakes import FAIL, STRANGE
from tests.server_processes import RunningServer


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def as_json(*images: bytes, **options: Any) -> bytes:
    return json.dumps({"images": [{"b64": b64(image)} for image in images], **options}).encode()


def labels(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [result["label"] for result in response.json()["results"]]


def refused(response: httpx.Response, status: int, *words: str) -> None:
    """Checks the status, the one shape of errors, and that the sentence names the problem."""
    assert response.status_code == status, response.text
    assert response.headers["X-Request-Id"]
    body = response.json()
    assert set(body) == {"error"}
    for word in words:
        assert word in body["error"]


# The three forms


@pytest.mark.parametrize(
    "content_type",
    [None, "image/png", "application/octet-stream", "application/x-www-form-urlencoded", "application/json"],
)
def test_a_raw_image_whatever_its_content_type(server: RunningServer, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = server.client.post("/v1/classify", content=picture(7), headers=headers)
    assert labels(response) == ["7"]


def test_the_whole_answer(server: RunningServer) -> None:
    response = server.client.post(
        "/v1/classify?top_k=2", content=picture(7), headers={"X-Request-Id": "abc-1"}
    )
    result = response.json()["results"][0]
    assert response.json()["id"] == response.headers["X-Request-Id"] == "abc-1"
    assert response.json()["store_revision"] == "fake-1"
    assert result["task"] == "digits"
    assert result["task_revision"] == "r1"
    assert result["score"] == pytest.approx(0.9)
    assert result["top"] == [
        {"label": "7", "score": result["score"]},
        {"label": "0", "score": pytest.approx(0.1 / 255)},
    ]
    assert result["routing"] == {
        "expert_set": ["digits"],
        "coefficients": {"digits": 0.9},
        "residuals": {"digits": 3.0},
        "familiarity": 0.5,
    }
    assert result["unrouted"] is False
    assert result["alternatives"] == []


def test_what_another_near_task_says_is_an_alternative() -> None:
    other = Alternative("signs", "r2", ("go", "stop"), torch.tensor([0.0, 1.0]), 0.25)
    answer = Classification(
        "digits",
        "r1",
        ("0", "1"),
        torch.tensor([1.0, 0.0]),
        ("digits", "signs"),
        {"digits": 0.75, "signs": 0.25},
        {},
        0.5,
        unrouted=False,
        passes=3.0,
        alternatives=(other,),
    )
    assert image_result(answer, top_k=1).model_dump()["alternatives"] == [
        {
            "task": "signs",
            "task_revision": "r2",
            "label": "stop",
            "score": pytest.approx(0.7311, abs=1e-4),
            "coefficient": 0.25,
        }
    ]


def test_a_multipart_form_with_fields(server: RunningServer) -> None:
    files = [("images", ("a.png", picture(3))), ("images", ("b.png", picture(4)))]
    response = server.client.post("/v1/classify", files=files, data={"tasks": "signs", "top_k": "1"})
    assert labels(response) == ["3", "4"]
    assert [result["task"] for result in response.json()["results"]] == ["signs", "signs"]
    assert len(response.json()["results"][0]["top"]) == 1


@pytest.mark.parametrize("name", ["image", "file", "files"])
def test_files_of_a_form_by_the_names_that_are_typed_first(server: RunningServer, name: str) -> None:
    files = [(name, ("a.png", picture(3))), (name, ("b.png", picture(4)))]
    assert labels(server.client.post("/v1/classify", files=files)) == ["3", "4"]


def test_an_image_as_a_data_uri(server: RunningServer) -> None:
    image = {"b64": f"data:image/png;base64,{b64(picture(3))}"}
    assert labels(server.client.post("/v1/classify", json={"images": [image]})) == ["3"]


def test_a_multipart_form_whose_header_was_lost(server: RunningServer) -> None:
    request = server.client.build_request("POST", "/v1/classify", files={"images": picture(3)})
    assert labels(server.client.post("/v1/classify", content=request.read())) == ["3"]


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain"])
def test_json_whatever_its_content_type(server: RunningServer, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    content = as_json(picture(5), picture(6), tasks=["signs", "digits"], top_k=3)
    response = server.client.post("/v1/classify", content=content, headers=headers)
    assert labels(response) == ["5", "6"]


def test_the_body_wins_over_the_query(server: RunningServer) -> None:
    response = server.client.post(
        "/v1/classify?tasks=digits&top_k=5", content=as_json(picture(5), tasks=["signs"])
    )
    result = response.json()["results"][0]
    assert (result["task"], len(result["top"])) == ("signs", 5)


@pytest.mark.parametrize(
    "query", ["tasks=signs,digits", "tasks=signs&tasks=digits", "tasks=signs&tasks=signs"]
)
def test_tasks_in_the_query(server: RunningServer, query: str) -> None:
    response = server.client.post(f"/v1/classify?{query}", content=picture(1))
    assert response.json()["results"][0]["task"] == "signs"


EACH_FORMS = ("json", "form", "raw", "mixed")


def asked_for_each(client: httpx.Client, form: str, tasks: list[str]) -> httpx.Response:
    names = ",".join(tasks)
    if form == "json":
        return client.post("/v1/classify", content=as_json(picture(5), tasks=tasks, answer="each"))
    if form == "form":
        fields = {"tasks": names, "answer": "each"}
        return client.post("/v1/classify", files={"images": picture(5)}, data=fields)
    if form == "raw":
        return client.post(f"/v1/classify?tasks={names}&answer=each", content=picture(5))
    return client.post(f"/v1/classify?tasks={names}&answer=best", content=as_json(picture(5), answer="each"))


@pytest.mark.parametrize("form", EACH_FORMS)
@pytest.mark.parametrize("tasks", [["signs", "digits"], ["digits", "signs"], ["signs"]])
def test_every_named_task_answers(server: RunningServer, form: str, tasks: list[str]) -> None:
    response = asked_for_each(server.client, form, tasks)
    assert labels(response) == ["5"] * len(tasks)
    results = response.json()["results"]
    assert [result["task"] for result in results] == tasks
    assert [result["routing"]["familiarity"] for result in results] == [None] * len(tasks)


def test_each_without_tasks_is_all_of_them_image_by_image(server: RunningServer) -> None:
    content = as_json(picture(3), picture(4), answer="each", top_k=2)
    results = server.client.post("/v1/classify", content=content).json()["results"]
    assert [(one["label"], one["task"]) for one in results] == [
        ("3", "digits"),
        ("3", "signs"),
        ("4", "digits"),
        ("4", "signs"),
    ]
    assert [len(one["top"]) for one in results] == [2] * 4


@pytest.mark.parametrize("form", EACH_FORMS)
def test_images_of_the_same_task(server: RunningServer, form: str) -> None:
    pair = [picture(3), picture(4)]
    requests: dict[str, dict[str, Any]] = {
        "json": {"content": as_json(*pair, same_task=True)},
        "form": {"files": [("images", one) for one in pair], "data": {"same_task": "true"}},
        "raw": {"content": pair[0], "params": {"same_task": "true"}},
        "mixed": {"content": as_json(*pair, same_task=False), "params": {"same_task": "true"}},
    }
    before = server.metric('mass_questions_total{answer="same_task"}')
    response = server.client.post("/v1/classify", **requests[form])
    assert labels(response) == (["3"] if form == "raw" else ["3", "4"])
    asked = server.metric('mass_questions_total{answer="same_task"}') - before
    assert asked == (0 if form == "mixed" else 1), "the body wins"


@pytest.mark.parametrize(
    ("text", "is_true"),
    [("true", True), ("TRUE", True), ("1", True), ("yes", True), ("0", False), ("no", False)],
)
def test_same_task_is_read_alike_in_a_query_and_in_a_form(
    server: RunningServer, text: str, is_true: bool
) -> None:
    def asked(**request: Any) -> float:
        before = server.metric('mass_questions_total{answer="same_task"}')
        assert server.client.post("/v1/classify", **request).status_code == 200
        return server.metric('mass_questions_total{answer="same_task"}') - before

    assert asked(content=picture(1), params={"same_task": text}) == is_true
    assert asked(files=[("images", picture(1))], data={"same_task": text}) == is_true


def test_requests_are_counted_by_what_they_ask(server: RunningServer) -> None:
    def count(answer: str) -> float:
        return server.metric(f'mass_questions_total{{answer="{answer}"}}')

    before = [count(answer) for answer in ("best", "each")]
    images = server.metric('mass_images_total{task="signs"}')
    server.client.post("/v1/classify?answer=best", content=picture(1))
    server.client.post("/v1/classify?answer=each", content=picture(1))
    assert [count(answer) for answer in ("best", "each")] == [before[0] + 1, before[1] + 1]
    assert server.metric('mass_images_total{task="signs"}') == images + 1


def test_top_k_beyond_the_labels_gives_all_of_them(server: RunningServer) -> None:
    response = server.client.post("/v1/classify?top_k=999", content=picture(1))
    assert len(response.json()["results"][0]["top"]) == 256


def test_a_body_in_chunks(server: RunningServer) -> None:
    data = picture(8)
    response = server.client.post("/v1/classify", content=(data[i : i + 10] for i in range(0, len(data), 10)))
    assert labels(response) == ["8"]


# What bad input gets

BAD_BODIES: list[tuple[str, bytes, int, str]] = [
    ("empty", b"", 400, "no body"),
    ("text", b"hello", 415, "not an image"),
    ("truncated", picture(1, size=(200, 200))[:-40], 400, "truncated"),
    ("bomb", bomb(), 413, "1000000"),
    ("JSON, cut off", as_json(picture(1))[:-5], 400, "JSON"),
    ("JSON, deeply nested", b'{"images":' + b"[" * 50_000, 400, ""),
    ("JSON, other type", b'{"images":"x"}', 400, "images"),
    ("JSON, no image", b'{"images":[]}', 400, "no image"),
    ("JSON, no images", b'{"tasks":["digits"]}', 400, "images"),
    ("JSON, unknown key", b'{"images":[],"image":1}', 400, "image"),
    ("JSON, not base64", b'{"images":[{"b64":"@@@"}]}', 400, "images[0].b64"),
    ("JSON, base64 with a line break", as_json(picture(1)).replace(b"iVBOR", b"iVB\\nOR"), 400, "base64"),
    ("JSON, base64 without padding", b'{"images":[{"b64":"QQ"}]}', 400, "base64"),
    ("JSON, data URI of another kind", b'{"images":[{"b64":"data:image/png,QUJD"}]}', 400, "base64"),
    ("JSON, data URI of no image", b'{"images":[{"b64":"data:image/png;base64,QUJD"}]}', 415, "image"),
    ("JSON, not ASCII", '{"images":[{"b64":"é"}]}'.encode(), 400, "base64"),
    ("JSON, empty image", b'{"images":[{"b64":""}]}', 400, "empty"),
    ("JSON, no picture in it", as_json(b"hello"), 415, "not an image"),
    ("JSON, one of two is bad", as_json(picture(1), b"hello"), 415, "images[1]"),
    ("JSON, unknown task", as_json(picture(1), tasks=["cats"]), 404, "cats"),
    ("JSON, unknown task that is no text", as_json(picture(1), tasks=["\udcff\n"]), 400, ""),
    ("JSON, empty tasks", as_json(picture(1), tasks=[]), 400, "tasks"),
    ("JSON, top_k 0", as_json(picture(1), top_k=0), 400, "top_k"),
    ("JSON, top_k 10^9", as_json(picture(1), top_k=10**9), 400, "top_k"),
    ("JSON, top_k 10^400", as_json(picture(1), top_k=10**400), 400, "top_k"),
    ("JSON, top_k true", as_json(picture(1), top_k=True), 400, "top_k"),
    ("JSON, unknown answer", as_json(picture(1), answer="all"), 400, "answer"),
    ("JSON, answer that is no text", as_json(picture(1), answer=["each"]), 400, "answer"),
    ("JSON, same_task that is no truth", as_json(picture(1), same_task="true"), 400, "same_task"),
    ("JSON, a mode that there is not", as_json(picture(1), mode="slow"), 400, "mode must be one of"),
    ("JSON, a mode of other servers", as_json(picture(1), mode="paper"), 400, "exact or balanced"),
    ("JSON, each and a mode", as_json(picture(1), answer="each", mode="exact"), 400, "leave one out"),
    ("JSON, each and same_task", as_json(picture(1), answer="each", same_task=True), 400, "leave one out"),
    ("JSON, each of no tasks", as_json(picture(1), tasks=[], answer="each"), 400, "tasks"),
    ("JSON, a task twice", as_json(picture(1), tasks=["signs"] * 2, answer="each"), 400, "more than once"),
    ("JSON, a task 5000 times", as_json(picture(1), tasks=["signs"] * 5000, answer="each"), 400, "once"),
    ("JSON, each of an unknown task", as_json(b"?", tasks=["signs", "cats"], answer="each"), 404, "cats"),
    ("JSON, too many answers", as_json(*[b"?"] * 5, answer="each"), 400, "10 answers, and a request may"),
    ("JSON, too many images", as_json(*[picture(1)] * 9), 413, "limit is 8"),
    (
        "multipart, cut off",
        b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\nabc',
        400,
        "cut off",
    ),
    ("multipart, no name", b"--x\r\nContent-Type: a/b\r\n\r\nabc\r\n--x--\r\n", 400, "name"),
    ("multipart, nothing", b"--x--\r\n", 400, ""),
    ("multipart, garbage", b"--x\r\n\0\0\0", 400, "multipart"),
]


@pytest.mark.parametrize(
    ("body", "status", "word"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES]
)
def test_bad_bodies(server: RunningServer, body: bytes, status: int, word: str) -> None:
    refused(server.client.post("/v1/classify", content=body), status, word)


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("top_k=0", 400, "top_k"),
        ("top_k=-1", 400, "top_k"),
        ("top_k=1000000000", 400, "top_k"),
        ("top_k=" + "9" * 5000, 400, "top_k"),
        ("top_k=many", 400, "top_k"),
        ("tasks=", 400, "tasks"),
        ("tasks=,", 400, "tasks"),
        ("tasks=cats", 404, "cats"),
        ("answer=all", 400, "answer"),
        ("answer=", 400, "answer"),
        ("answer=EACH", 400, "answer"),
        ("answer=each&same_task=true", 400, "leave one out"),
        ("answer=each&tasks=signs,signs", 400, "more than once"),
        ("same_task=perhaps", 400, "same_task"),
        ("mode=slow", 400, "mode"),
        ("mode=paper", 400, "exact or balanced"),
        ("tasks=digits,c%00ts", 404, "\\x00"),
        ("tasks=%ff", 404, "task"),
    ],
)
def test_bad_queries(server: RunningServer, query: str, status: int, word: str) -> None:
    refused(server.client.post(f"/v1/classify?{query}", content=picture(1)), status, word)


def test_bad_multipart_fields(server: RunningServer) -> None:
    def post(name: str, **fields: str) -> httpx.Response:
        return server.client.post("/v1/classify", files={name: picture(1)}, data=fields)

    refused(post("picture"), 400, "'picture'", "images")
    refused(post("images", top_k="x"), 400, "top_k")
    refused(post("images", top_k="9" * 5000), 400, "top_k")
    refused(post("images", tasks=""), 400, "tasks")
    refused(post("images", tasks="cats"), 404, "cats")
    refused(post("images", answer="all"), 400, "answer")
    refused(post("images", answer="x" * 100_000), 400, "answer")
    refused(post("images", same_task="perhaps"), 400, "same_task", "true or false")
    refused(post("images", same_task=""), 400, "same_task")
    refused(post("images", same_task="true", answer="each"), 400, "leave one out")
    refused(post("images", mode="slow"), 400, "mode must be one of")
    refused(post("images", label="3"), 400, "label", "images, tasks, top_k, answer, same_task")


def test_a_multipart_header_without_a_multipart_body(server: RunningServer) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(server.client.post("/v1/classify", content=b"abc", headers=headers), 400, "boundary")


def test_a_body_over_the_limit_is_refused_unread(server: RunningServer) -> None:
    """Only the head is sent: an answer shows that nothing was waited for."""
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"The body is larger than 200000 bytes' in answer


def test_a_chunked_body_over_the_limit(server: RunningServer) -> None:
    chunks = (bytes(10_000) for _ in range(100))
    refused(server.client.post("/v1/classify", content=chunks), 413, "200000")


def test_a_client_that_sends_all_of_a_large_body_still_reads_the_answer(server: RunningServer) -> None:
    refused(server.client.post("/v1/classify", content=bytes(5_000_000)), 413, "200000")


def test_other_paths_and_methods(server: RunningServer) -> None:
    refused(server.client.get("/nothing"), 404, "/nothing")
    refused(server.client.get("/v1/tasks/cats"), 404, "cats")
    refused(server.client.get("/v1/tasks/%ff%0a"), 404)
    response = server.client.get("/v1/classify")
    refused(response, 405, "POST")
    assert response.headers["Allow"] == "POST"
    refused(server.client.request("BREW", "/v1/tasks"), 405, "GET")


def test_no_slash_is_redirected(server: RunningServer) -> None:
    """A redirect would name the host that the caller named."""
    refused(server.client.get("/v1/tasks/"), 404, "/v1/tasks/")


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/", "/v2/health/live", "/v2/health/ready"]
)
def test_head_is_get_without_the_body(server: RunningServer, path: str) -> None:
    response = server.client.head(path)
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["Content-Type"] == server.client.get(path).headers["Content-Type"]


@pytest.mark.parametrize("version", ["2.0", "9.9"])
def test_other_versions_of_http(server: RunningServer, version: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(f"GET /livez HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 505 ")
    assert b"HTTP/1.1" in answer.partition(b'"error"')[2]


def test_an_engine_failure_is_a_500_that_tells_nothing_of_the_inside(server: RunningServer) -> None:
    response = server.client.post("/v1/classify", content=picture(1, green=FAIL))
    refused(response, 500, "try again")
    assert "asked to fail" not in response.text
    assert labels(server.client.post("/v1/classify", content=picture(2))) == ["2"]


@settings(max_examples=150)
@given(
    body=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=100).map(lambda tail: b"--x\r\n" + tail),
        st.binary(max_size=60).map(
            lambda tail: b'--x\r\nContent-Disposition: form-data; name="' + tail + b"--x--"
        ),
        st.dictionaries(
            st.sampled_from(["images", "tasks", "top_k", "other"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("b64"), inner),
                max_leaves=5,
            ),
        ).map(lambda value: json.dumps(value).encode()),
    ),
    content_type=st.sampled_from(
        ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=x"]
    ),
    query=st.sampled_from(["", "?top_k=1", "?tasks=", "?tasks=a,b", "?top_k="]),
)
def test_no_body_makes_a_server_error(
    server: RunningServer, body: bytes, content_type: str, query: str
) -> None:
    response = server.client.post(
        f"/v1/classify{query}", content=body, headers={"Content-Type": content_type}
    )
    assert response.status_code in (400, 404, 413, 415)
    assert list(response.json()) == ["error"]


# Everything beside the classification


@pytest.mark.parametrize("given_id", ["", "with space", "x" * 129, "ü".encode("latin-1"), "{}"])
def test_an_insane_request_id_is_replaced(server: RunningServer, given_id: str | bytes) -> None:
    response = server.client.get(
        "/v1/tasks",
        headers=[(b"X-Request-Id", given_id if isinstance(given_id, bytes) else given_id.encode())],
    )
    assert len(response.headers["X-Request-Id"]) == 32


def test_tasks(server: RunningServer) -> None:
    listed = server.client.get("/v1/tasks").json()
    assert [task["name"] for task in listed["tasks"]] == ["digits", "signs"]
    assert listed["store_revision"] == "fake-1"
    one = server.client.get("/v1/tasks/signs").json()
    assert one == listed["tasks"][1]
    assert (one["revision"], one["head_kind"], one["rank"], one["individual_accuracy"]) == (
        "r1",
        "cosine",
        4,
        0.9,
    )
    assert len(one["labels"]) == 256


def test_health(server: RunningServer) -> None:
    assert server.client.get("/livez").json() == {"status": "alive"}
    assert server.client.get("/readyz").json() == {"status": "ready", "store_revision": "fake-1"}


def test_metrics_count_what_happened(server: RunningServer) -> None:
    samples = [
        'mass_requests_total{code="200",protocol="v1"}',
        'mass_requests_total{code="415",protocol="v1"}',
        'mass_rejected_total{reason="bad_image"}',
        'mass_images_total{task="signs"}',
        'mass_routed_images_total{task="digits"}',
        'mass_stage_duration_seconds_count{stage="decode"}',
        'mass_stage_duration_seconds_count{stage="second_pass"}',
        "mass_batch_size_count",
        "mass_expert_set_size_count",
        "mass_routing_top_coefficient_count",
    ]
    before = [server.metric(sample) for sample in samples]
    assert labels(server.client.post("/v1/classify?tasks=signs", content=picture(1))) == ["1"]
    assert labels(server.client.post("/v1/classify", content=picture(1))) == ["1"]
    refused(server.client.post("/v1/classify", content=b"hello"), 415)
    gained = [server.metric(sample) - old for sample, old in zip(samples, before, strict=True)]
    assert gained == [2, 1, 1, 1, 1, 2, 2, 2, 1, 1]


def test_images_that_no_task_covers_are_counted(server: RunningServer) -> None:
    samples = [f'mass_{kind}_total{{task="digits"}}' for kind in ("unrouted_images", "images")]
    before = [server.metric(sample) for sample in samples]
    for task, unrouted in (("", True), ("?tasks=digits", False)):  # a task that is named is believed
        answer = server.client.post(f"/v1/classify{task}", content=picture(1, green=STRANGE)).json()
        assert answer["results"][0]["unrouted"] is unrouted
    assert [server.metric(sample) - old for sample, old in zip(samples, before, strict=True)] == [1, 2]


def test_metrics_that_are_there_from_the_start(server: RunningServer) -> None:
    assert server.metric("mass_ready") == 1
    assert server.metric("mass_queue_capacity") == 64
    assert server.metric("mass_queue_depth") == 0
    assert server.metric("mass_requests_in_progress") == 0
    assert server.metric('mass_rejected_total{reason="queue_full"}') == 0
    assert server.metric('mass_task_loaded{revision="r1",task="digits"}') == 1
    assert server.metric('mass_unrouted_images_total{task="signs"}') == 0
    assert server.metric("mass_set_cache_hits_total") == 3
    assert server.metric('mass_segments_total{form="low_rank"}') == 4
    assert server.metric('mass_segments_total{form="materialised"}') == 1
    assert server.metric('mass_device_memory_bytes{kind="pretrained"}') == 1000
    options = 'device="auto",dtype="float32",embedding_pooling="own",execution="low_rank"'
    options += ',first_pass_dtype="same",mode=""'
    assert server.metric(f'mass_build_info{{{options},version="{__version__}"}}') == 1


def test_the_description_is_complete_and_promises_no_422(server: RunningServer) -> None:
    description = server.client.get("/openapi.json").json()
    operation = description["paths"]["/v1/classify"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "application/json",
        "application/octet-stream",
        "multipart/form-data",
    }
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {
        "tasks",
        "top_k",
        "answer",
        "same_task",
        "stream",
        "priors",
        "aggregation",
        "mode",
        "X-Request-Id",
    }
    assert {"200", "400", "404", "413", "415", "429", "500", "503", "504"} <= set(operation["responses"])
    statuses = {s for path in description["paths"].values() for op in path.values() for s in op["responses"]}
    assert "422" not in statuses
    assert "HTTPValidationError" not in description["components"]["schemas"]
    for reference in _references(description):
        assert reference.removeprefix("#/components/schemas/") in description["components"]["schemas"]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    return []
