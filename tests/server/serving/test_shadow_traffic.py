"""Real servers whose store has a next revision: one that answers, and one that hangs on every input."""

from __future__ import annotations

import dataclasses
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image

from mass_serve.model_store.next_revision import discard, promote
from mass_serve.model_store.next_store import next_url
from mass_serve.model_store.revisions import add_task
from mass_serve.server.serving.shadow import MOST_WAITING
from tests.models import Suite
from tests.pictures import encode, picture
from tests.server_processes import PATIENCE, RunningServer, running, serving, wait_for

PICTURE = encode(Image.linear_gradient("L").convert("RGB"))


def classify(server: RunningServer, data: bytes = PICTURE, **parameters: str) -> httpx.Response:
    response = server.client.post("/v1/classify", content=data, params=parameters)
    assert response.status_code == 200, response.text
    return response


def by_task(server: RunningServer, metric: str) -> float:
    """The sum over all tasks."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{metric}{{"))


def test_a_next_revision_answers_silently_until_it_is_promoted(suite: Suite, store: Path) -> None:
    following = dataclasses.replace(suite.tasks[2], name="digits")
    with serving(store, store_poll_seconds=0.1, shadow_share=1.0, drain_seconds=0) as server:
        server.wait_until_ready()
        before = classify(server, tasks="digits").json()
        assert by_task(server, "mass_shadow_compared_total") == 0
        made = add_task(next_url(store), following, replace=True)
        loaded = f'mass_shadow_loaded{{revision="{made.manifest.store_revision}"}}'
        wait_for(lambda: loaded in server.client.get("/metrics").text)
        for _ in range(5):
            asked = classify(server, tasks="digits").json()
            assert asked["results"] == before["results"], "the next revision's answers are nobody's"
            assert asked["store_revision"] == before["store_revision"]
        wait_for(lambda: server.metric('mass_shadow_compared_total{task="digits"}') == 5)
        flipped = server.metric('mass_shadow_flipped_total{task="digits"}')
        assert server.metric('mass_images_total{task="digits"}') == 6, "nor are they counted among answers"
        promote(store)
        wait_for(lambda: classify(server).json()["store_revision"] == made.manifest.store_revision)
        wait_for(lambda: loaded not in server.client.get("/metrics").text)
        after = classify(server, tasks="digits").json()["results"][0]
        assert after["task_revision"] == made.task("digits").revision
        is_other = after["label"] != before["results"][0]["label"]
        assert flipped == (5 if is_other else 0), "what the shadow said is what the revision says in service"
        assert by_task(server, "mass_shadow_errors_total") == 0
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0


def test_a_discarded_revision_leaves_the_server(suite: Suite, store: Path) -> None:
    with serving(store, store_poll_seconds=0.1, shadow_share=0.5, drain_seconds=0) as server:
        server.wait_until_ready()
        add_task(next_url(store), dataclasses.replace(suite.tasks[2], name="digits"), replace=True)
        wait_for(lambda: "mass_shadow_loaded{" in server.client.get("/metrics").text)
        for _ in range(10):
            classify(server)
        wait_for(lambda: by_task(server, "mass_shadow_compared_total") == 5)
        discard(store)
        wait_for(lambda: "mass_shadow_loaded{" not in server.client.get("/metrics").text)
        assert classify(server).json()["store_revision"]
        wait_for(lambda: '"compared": 5' in server.log())


def test_a_revision_that_hangs_delays_nobody(tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    hangs.touch()
    settings: dict[str, object] = {"shadow_share": 1.0, "store_poll_seconds": 0.1, "drain_seconds": 0}
    with running(0.0, settings, {"FAKE_NEXT_HANGS": str(hangs)}) as server:
        server.wait_until_ready()
        wait_for(lambda: 'mass_shadow_loaded{revision="fake-2"}' in server.client.get("/metrics").text)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: classify(server, picture(7)).json(), range(MOST_WAITING + 20)))
        assert {answer["results"][0]["label"] for answer in answers} == {"7"}
        # All but those that wait and the one that hangs, which may have left the queue after it was full.
        wait_for(lambda: server.metric("mass_shadow_dropped_total") in (19, 20))
        assert by_task(server, "mass_shadow_compared_total") == 0
        assert server.client.get("/livez").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
