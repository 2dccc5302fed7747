"""Opens hostile stores and checkpoints, each in a process of its own, and says how each ended.

    python -m tests.hostile.opening store FOLDER...
    python -m tests.hostile.opening checkpoint PRETRAINED FOLDER...

prints one JSON line for each folder. Those processes are forked, so that torch is imported once; it has no
threads then that would not survive it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 30
# What is not bounded shall not take the machine down.
ADDRESS_SPACE = 16 << 30


@dataclass(frozen=True)
class Ending:
    """The end of one attempt."""

    kind: str  # "served" or "built", "StoreError", "hung", "killed", or the name of another exception
    text: str
    verified: tuple[str, ...] = ()  # what `verify` says of a store that can be opened
    grown_bytes: int = 0  # of resident memory, at its peak
    seconds: float = 0.0


def run(what: str, *arguments: Path) -> Iterator[Ending]:
    """Opens each folder in a fresh program, in their order."""
    program = [sys.executable, "-m", "tests.hostile.opening", what, *map(str, arguments)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for line in ended.stdout.splitlines():
        yield Ending(**json.loads(line))


def serve(folder: Path) -> Ending:
    """Loads a store and answers an image by it, as a server does before it is ready."""
    import torch

    from mass_serve.engine import Engine, Query
    from mass_serve.model_store.errors import StoreError

    try:
        engine = Engine.load(str(folder), device="cpu")
        crop = engine.preprocessing.crop
        engine.classify_batch([Query(torch.zeros(3, crop, crop, dtype=torch.uint8))]).all_answers()
        ending = Ending("served", "")
    except StoreError as error:
        ending = Ending("StoreError", str(error))
    return Ending(ending.kind, ending.text, _verified(folder))


def _verified(folder: Path) -> tuple[str, ...]:
    from mass_serve.model_store.errors import StoreError
    from mass_serve.model_store.store import Store

    try:
        return tuple(Store.open(str(folder)).verify())
    except StoreError as error:
        return (str(error),)


def build_from(pretrained: Path, folder: Path) -> Ending:
    """Builds a store of one task, whose checkpoint is in the folder."""
    from mass_serve.model_store.build_options import BuildOptions
    from mass_serve.model_store.build_store import build
    from mass_serve.model_store.errors import StoreError
    from mass_serve.model_store.plan import TaskInput

    out = folder.with_name(f"{folder.name}-store")
    try:
        build(pretrained, [TaskInput("digits", folder)], out, BuildOptions(allow_pickle=True))
    except StoreError as error:
        return Ending("StoreError", str(error))
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return Ending("built", "")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _attempt(open_it: Callable[[], Ending]) -> Ending:
    """Runs one attempt in this process."""
    before, started = _peak_bytes(), time.monotonic()
    try:
        ending = open_it()
    except Exception as error:
        ending = Ending(type(error).__name__, str(error))
    grown, seconds = _peak_bytes() - before, time.monotonic() - started
    return Ending(ending.kind, ending.text, ending.verified, grown, seconds)


def _forked(open_it: Callable[[], Ending]) -> Ending:
    """Runs one attempt in a child, which is killed when its time is over."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        signal.alarm(DEADLINE_SECONDS)
        with open(writing, "w") as out:
            out.write(json.dumps(asdict(_attempt(open_it))))
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        content = answer.read()
    _, status = os.waitpid(child, 0)
    if content:
        return Ending(**json.loads(content))
    was_alarm = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    return Ending("hung" if was_alarm else "killed", f"status {status}")


def main(what: str, arguments: Sequence[str]) -> None:
    """Prints the ending of each."""
    import torch

    import mass_serve.engine
    import mass_serve.model_store.build_store  # noqa: F401 - once, before the forks

    torch.set_num_threads(1)
    folders = [Path(argument) for argument in arguments]
    if what == "checkpoint":
        pretrained, *folders = folders
    for folder in folders:
        ending = _forked(
            (lambda: serve(folder)) if what == "store" else (lambda: build_from(pretrained, folder))  # noqa: B023
        )
        print(json.dumps(asdict(ending)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
