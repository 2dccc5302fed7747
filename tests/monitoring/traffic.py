"""Requests of every kind that a server sees: good, bad, for all protocols, and too many at once."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import httpx

from mass_serve.model_store.next_store import next_url
from mass_serve.model_store.revisions import remove_task

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "examples" / "images"
# Some images of every task are below this, and some above it.
UNROUTED_BELOW = 0.4
# As many images as the server's queue has places, several times at once.
CROWD = 8
CROWD_IMAGES = 8
# A line of a key file; it allows one image in a long time.
BOUNDED_KEY = "a-bounded-key"
BOUNDED = f"{BOUNDED_KEY} name=bounded rate=0.1"
NO_TIME = 1  # microseconds

Send = Callable[[httpx.Client, bytes], httpx.Response]


def v1(client: httpx.Client, image: bytes) -> httpx.Response:
    """Among all tasks."""
    return client.post("/v1/classify", content=image)


def v1_one_task(client: httpx.Client, image: bytes) -> httpx.Response:
    """For one task: nothing is routed."""
    return client.post("/v1/classify?tasks=digits", content=image)


def v1_each(client: httpx.Client, image: bytes) -> httpx.Response:
    """Every task's answer."""
    return client.post("/v1/classify?answer=each&tasks=digits,textures", content=image)


def v1_stream(client: httpx.Client, image: bytes) -> httpx.Response:
    """The next image of a stream."""
    return client.post("/v1/classify?stream=camera", content=image)


def v1_many(client: httpx.Client, image: bytes) -> httpx.Response:
    """A request that takes the whole queue."""
    encoded = {"b64": base64.b64encode(image).decode()}
    return client.post("/v1/classify", json={"images": [encoded] * CROWD_IMAGES})


def v1_bounded(client: httpx.Client, image: bytes) -> httpx.Response:
    """With a key that may ask seldom."""
    return client.post("/v1/classify", content=image, headers={"X-API-Key": BOUNDED_KEY})


def v2(client: httpx.Client, image: bytes, **parameters: int) -> httpx.Response:
    """By the Open Inference Protocol."""
    data = [base64.b64encode(image).decode()]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
    return client.post("/v2/models/auto/infer", json={"inputs": [tensor], "parameters": parameters})


def v2_late(client: httpx.Client, image: bytes) -> httpx.Response:
    """Wanted sooner than anybody could answer."""
    return v2(client, image, timeout=NO_TIME)


def hugging_face(client: httpx.Client, image: bytes) -> httpx.Response:
    """As Hugging Face's client asks."""
    return client.post("/", content=image)


def unknown_task(client: httpx.Client, image: bytes) -> httpx.Response:
    """For a task that is not there."""
    return client.post("/models/nothing", content=image)


def truncated(client: httpx.Client, image: bytes) -> httpx.Response:
    """A file that ends early."""
    return client.post("/v1/classify", content=image[: len(image) // 2])


def no_image(client: httpx.Client, image: bytes) -> httpx.Response:
    """Bytes of no format."""
    return client.post("/v1/classify", content=image[::-1])


def wrong_method(client: httpx.Client, _: bytes) -> httpx.Response:
    """A request that no route takes."""
    return client.get("/v1/classify")


def page(client: httpx.Client, _: bytes) -> httpx.Response:
    """What a browser asks for."""
    return client.get("/")


KINDS: list[tuple[Send, set[int]]] = [
    (v1, {200, 429}),
    (v1_one_task, {200, 429}),
    (v1_each, {200, 429}),
    (v1_stream, {200, 429}),
    (v1_bounded, {200, 429}),
    (v2, {200, 429}),
    (v2_late, {429, 504}),
    (hugging_face, {200, 429}),
    (unknown_task, {404}),
    (truncated, {400, 429}),
    (no_image, {415, 429}),
    (wrong_method, {405}),
    (page, {200}),
]


def discerning_store(path: Path) -> Path:
    """The demo store with a bound to what it believes, which it has not by itself, and a next revision.

    That one lacks a task that no request names.
    """
    shutil.copytree(ROOT / "server" / "demo_store", path)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    manifest["router"]["unrouted_below"] = UNROUTED_BELOW
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    remove_task(next_url(path), "hebrew")
    return path


def send_mixed(address: str, seconds: float) -> Counter[int]:
    """Sends every kind in turn, and a crowd now and then. Returns how often each status came."""
    pictures = cycle(path.read_bytes() for path in sorted(IMAGES.rglob("*.png")))
    statuses: Counter[int] = Counter()
    ends = time.monotonic() + seconds
    with (
        httpx.Client(base_url=address, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(CROWD) as pool,
    ):
        while time.monotonic() < ends:
            for send, expected in KINDS:
                response = send(client, next(pictures))
                assert response.status_code in expected, (send.__name__, response.status_code, response.text)
                statuses[response.status_code] += 1
            crowd = [pool.submit(send, client, next(pictures)) for send in (v1, v1_many) * CROWD]
            statuses.update(future.result().status_code for future in crowd)
    return statuses
