"""What commands take that only tell something, and a server until it is ready, in processes of their own.

    python -m benchmarks.starting [--store STORE] [--rounds 7] [--json benchmarks/results/starting_cpu.json]

Seconds of a processor, of all threads, in the system too; the least of several, which take turns. Modules are
compiled before. `start_ready` is the server's process with the demo store until it says so, and
`start_ready_of_store` with STORE; the processes that decode for it start beside and are not counted.
`start_torch` is what any program takes until it has torch, with the search for garbage put off as in ours.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

import mass_serve
from mass_serve.server.startup import demo_store

PROGRAM = (sys.executable, "-m", "mass_serve.cli")


def seconds_of(command: tuple[str, ...]) -> float:
    """Runs a command to its end."""
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def seconds_until_ready(store: str) -> float:
    """Starts a server, and ends it once it says that it is ready. Raises RuntimeError where it never does."""
    command = [*PROGRAM, "serve", store, "--port", "0", "--num-threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if " ready " in line:
                    times = psutil.Process(server.pid).cpu_times()
                    return float(times.user + times.system)
            raise RuntimeError("the server ended before it was ready")
        finally:
            server.kill()


def seconds_to_import_torch() -> float:
    """Starts an interpreter, which says what it took until torch was there."""
    code = "import gc, time; gc.disable(); import torch; print(time.process_time())"
    done = subprocess.run((sys.executable, "-c", code), check=True, capture_output=True, text=True)
    return float(done.stdout)


def measured(store: str | None, rounds: int) -> dict[str, float]:
    """The least seconds of each."""
    demo = demo_store()
    runs: dict[str, Callable[[], float]] = {
        "start_torch": seconds_to_import_torch,
        "start_serve_help": lambda: seconds_of((*PROGRAM, "serve", "--help")),
        "start_eval_help": lambda: seconds_of((*PROGRAM, "eval", "--help")),
        "start_inspect": lambda: seconds_of((*PROGRAM, "inspect", demo)),
        "start_ready": lambda: seconds_until_ready(demo),
    }
    if store is not None:
        runs["start_ready_of_store"] = lambda: seconds_until_ready(store)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run())
    return {name: round(min(values), 3) for name, values in times.items()}


def main() -> None:
    """Measures and prints, and writes where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    for folder in Path(mass_serve.__file__).parent.iterdir():
        compileall.compile_dir(folder.resolve(), quiet=2)
    text = json.dumps(measured(asked.store, asked.rounds), indent=2) + "\n"
    print(text, end="")
    if asked.json is not None:
        asked.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
