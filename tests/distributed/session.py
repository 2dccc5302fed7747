"""A cluster of this machine alone, what is done on it, and what came of it, as JSON on standard output.

    unshare ... python -m tests.distributed.session FOLDER

It runs in a network namespace, as Ray listens on all interfaces, and in one of processes, whose end ends all.
The commands are those that a user gives; replicas and workers are killed as the kernel would.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from mass_serve.client import Client, ClientError
from mass_serve.server.startup import demo_store

URL = "http://127.0.0.1:8124"
PICTURE = Path(demo_store()).parent / "demo_samples" / "digits.png"
PICTURES = Path(__file__).parents[2] / "examples" / "evaluation"
REMOVED = "textures"
CALLERS, PAUSE_SECONDS = 4, 0.1
DEADLINE_SECONDS = 400.0
# The machine of the tests may be busy: what Ray gives seconds for may take it minutes.
ENVIRONMENT = {
    "RAY_ADDRESS": "127.0.0.1:6379",
    "RAY_AUTH_MODE": "disabled",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "120",
}


class Load:
    """Callers that ask again and again, and count what comes of it."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()  # by the store's revision
        self.failed: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CALLERS)]

    def _ask(self) -> None:
        with Client(URL) as client:
            # Loading has the least priority: without a pause nothing is left for it on a small machine.
            while not self._over.wait(PAUSE_SECONDS):
                try:
                    client.classify(PICTURE.read_bytes())
                except ClientError as error:
                    self.failed.append(str(error))
                else:
                    self.answered["all"] += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_for("answers", lambda: self.answered["all"] > CALLERS)
        return self

    def __exit__(self, *_: object) -> None:
        before = self.answered["all"]
        wait_for("more answers", lambda: self.answered["all"] > before + 2 * CALLERS)
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def told(self) -> dict[str, object]:
        return {"answered": self.answered["all"], "failed": self.failed}


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Returns once it holds. Raises TimeoutError."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited too long for {what}")
        time.sleep(0.2)


def metric(name: str, **labels: str) -> Mapping[str, float]:
    """The sum of a metric's samples with some labels, by replica."""
    found: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                found[sample.labels["replica"]] += sample.value
    return found


def exposition() -> str:
    """What Prometheus is told; a replica that was killed may have been asked for it."""
    while (response := httpx.get(f"{URL}/metrics", timeout=60)).status_code != 200:
        time.sleep(0.2)
    return response.text


def ask_raw() -> dict[str, Any]:
    """The whole answer about one picture."""
    response = httpx.post(f"{URL}/v1/classify", content=PICTURE.read_bytes(), timeout=60)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def processes(name: str) -> list[psutil.Process]:
    """What Ray runs under a name, such as ray::Worker."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if " ".join(one.info["cmdline"] or ()).startswith(name)
    ]


def kill_one(name: str) -> None:
    """Ends the first process under a name as nothing can prepare for, once there is one."""

    def killed() -> bool:
        found = processes(name)[:1]
        for process in found:
            process.kill()
        return bool(found)

    wait_for(name, killed)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mass_serve.cli", *arguments]


@contextmanager
def cluster() -> Iterator[None]:
    """A head with four cores."""
    start = ("start", "--head", "--num-cpus=4", "--include-dashboard=false", "--node-ip-address=127.0.0.1")
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *start], check=True, stdout=subprocess.DEVNULL
    )
    yield  # its end is that of all processes here


def serve(store: Path) -> dict[str, Any]:
    """Two replicas: their answers, a new revision and a death under load, and their end."""
    flags = ("--min-replicas=2", "--max-replicas=2", "--store-poll-seconds=0.5", "--port=8124")
    server = subprocess.Popen(command("ray", "serve", str(store), *flags), stdout=subprocess.DEVNULL)
    told: dict[str, Any] = {}
    wait_for("replicas", lambda: server.poll() is None and answers() and len(metric("mass_ready")) == 2)
    told["answers"] = [ask_raw() for _ in range(20)]
    # A replica tells the others what it counts every few seconds.
    wait_for("all counts", lambda: sum(asked().values()) >= len(told["answers"]))
    told["asked"] = asked()
    told["request_ids"] = httpx.get(f"{URL}/v1/tasks", headers={"X-Request-Id": "one"}).headers.get_list(
        "x-request-id"
    )
    told["shared_bytes"] = [shared_bytes(one.pid) for one in processes("ray::ServeReplica")]
    with Load() as swapped:
        subprocess.run(command("task", "remove", str(store), REMOVED), check=True, stdout=subprocess.DEVNULL)
        wait_for("the new revision", lambda: not metric("mass_task_loaded", task=REMOVED))
    told["swap"] = {**swapped.told, "answers": [ask_raw() for _ in range(20)]}
    before = set(metric("mass_ready"))
    with Load() as killed:
        kill_one("ray::ServeReplica")
        wait_for("another replica", lambda: len(set(metric("mass_ready")) - before) == 1)
    told["kill"] = killed.told
    server.terminate()
    told["exit_code"] = server.wait(DEADLINE_SECONDS)
    wait_for("the replicas' end", lambda: not processes("ray::ServeReplica"))
    return told


def asked() -> Mapping[str, float]:
    """The classifications that were answered, by replica."""
    return metric("mass_requests_total", protocol="v1", code="200")


def answers() -> bool:
    try:
        return httpx.get(f"{URL}/readyz", timeout=60).status_code == 200
    except httpx.HTTPError:
        return False


def shared_bytes(process: int) -> int:
    """The resident bytes of a process that lie in Ray's object store."""
    total, counts = 0, False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            counts = "plasma" in line
        elif counts and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


def batch(folder: Path) -> dict[str, object]:
    """The same job here, by workers of which one is killed, and by workers whose command is killed."""
    plain = ("batch", demo_store(), str(PICTURES), "--json", "--out")
    on_ray = command(*plain, str(folder / "workers"), "--ray-workers=2")
    told: dict[str, object] = {}
    subprocess.run(command(*plain, str(folder / "here")), check=True, stdout=subprocess.DEVNULL)
    first = subprocess.Popen(on_ray, stdout=subprocess.PIPE, text=True)
    kill_one("ray::Worker.answer")
    told["was_running"] = first.poll() is None
    told["told"] = json.loads(first.communicate()[0])
    told["exit_code"] = first.returncode
    shutil.move(folder / "workers", folder / "lost_worker")
    second = subprocess.Popen(on_ray, stdout=subprocess.DEVNULL)
    wait_for("a worker", lambda: bool(processes("ray::Worker.answer")) or second.poll() is not None)
    second.kill()
    second.wait()
    told["gone_on"] = subprocess.run(on_ray, stdout=subprocess.DEVNULL, check=False).returncode
    return told


def main(folder: Path) -> None:
    """Does all of it."""
    os.environ |= ENVIRONMENT
    store = folder / "store"
    shutil.copytree(demo_store(), store)
    with cluster():
        told = {"serve": serve(store), "batch": batch(folder)}
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main(Path(sys.argv[1]))
