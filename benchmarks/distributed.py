"""Two replicas on Ray with half of the cores each, over one with all of them: images a second.

    python -m benchmarks.distributed [--json FILE] [--rounds N] [--seconds N] [--keep FOLDER]

Both are up at once, and asked in turns, so that other work on the machine disturbs both alike. The encoder
has ViT-B/32's sizes and random weights; each of CALLERS asks about PER_REQUEST JPEGs of its size at a time.
Ray listens on all interfaces: in `unshare --net bash -c 'ip link set lo up; ...'` nobody else reaches it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve

from benchmarks.batch import jpegs
from benchmarks.random_adapters import random_adapter_store
from mass_serve.client import Client
from mass_serve.distributed.deployment import application
from mass_serve.distributed.settings import load_ray_settings
from mass_serve.model_store.format.file_names import MANIFEST_FILE

TASKS, RANK, TASK = 8, 16, "task0"
PORT = 8125
CALLERS, PER_REQUEST = 8, 2
# However slow the machine is, all is admitted and waited for.
PATIENCE_SECONDS = 300.0
WARM_UP_SECONDS = 3.0
# Replicas by how a variant is called.
VARIANTS = {"whole": 1, "halves": 2}


def deploy(store: Path) -> None:
    """Starts all replicas, those of a variant below its own path."""
    cores = os.cpu_count() or 1
    ray.init(num_cpus=cores * len(VARIANTS), log_to_driver=False)
    serve.start(http_options={"port": PORT})
    for name, replicas in VARIANTS.items():
        threads = max(1, cores // replicas)
        settings = load_ray_settings(
            {
                "store": str(store),
                "min_replicas": replicas,
                "max_replicas": replicas,
                "num_threads": threads,
                "port": PORT,
                "store_poll_seconds": 0,
                "request_timeout": PATIENCE_SECONDS,
            }
        )
        serve.run(application(settings), name=name, route_prefix=f"/{name}")


def images_a_second(name: str, pictures: list[bytes], seconds: float) -> float:
    """What the replicas of a variant answer while nobody asks the others."""
    begin = time.monotonic() + WARM_UP_SECONDS
    counts: list[int] = []

    def ask() -> None:
        answered = 0
        with Client(f"http://127.0.0.1:{PORT}/{name}", timeout=PATIENCE_SECONDS) as client:
            while time.monotonic() < begin + seconds:
                client.classify(list(pictures), tasks=TASK)
                answered += len(pictures) if time.monotonic() >= begin else 0
        counts.append(answered)

    callers = [threading.Thread(target=ask) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(counts) / (time.monotonic() - begin)


def store_in(folder: Path) -> Path:
    """Builds the store, unless it is there."""
    store = folder / "store"
    if not (store / MANIFEST_FILE).exists():
        random_adapter_store(store, TASKS, RANK)
    return store


def measured(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """The rates of each round, and how the medians compare."""
    deploy(store_in(folder))
    pictures = list(jpegs(PER_REQUEST, (224, 224)))
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    loads: list[float] = []
    for _ in range(rounds):
        for name in VARIANTS:
            rates[name].append(images_a_second(name, pictures, seconds))
            print(f"{name:>8} {rates[name][-1]:8.1f} images a second", flush=True)
        loads.append(os.getloadavg()[0])
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "cores": os.cpu_count(),
        "images_a_second": rates,
        "halves_over_whole": medians["halves"] / medians["whole"],
        "load_average": loads,
    }


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--keep", type=Path, help="folder for the store, which is used again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measured(given.keep or Path(temporary), given.rounds, given.seconds)
    print(json.dumps(figures, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
