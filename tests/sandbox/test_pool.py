"""Work goes on in processes of their own; one that misbehaves is replaced, and costs its own job alone."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from mass_serve.sandbox import processes
from mass_serve.sandbox.bounds import (
    Belonging,
    Bounds,
    ExceededError,
    MemoryShortError,
    RefusedError,
)
from mass_serve.sandbox.child import ResultTooLargeError
from mass_serve.sandbox.pool import ABANDONED_SECONDS, SandboxPool
from mass_serve.sandbox.worker import Worker
from mass_serve.server.serving.fair_queue import FairQueue, Turn
from tests.imports import ROOT
from tests.sandbox import misbehaving

NAMES = ("echo", "refuse", "crash", "end", "killed", "spin", "sleep", "eat_memory", "open_files", "lie")


def named(function: str) -> str:
    return f"{misbehaving.__name__}:{function}"


FUNCTIONS = [named(name) for name in (*NAMES, "too_much", "keep", "tell_kept")]
BOUNDS = Bounds(cpu_seconds=20.0, wall_seconds=60.0, memory_bytes=100 << 20, result_bytes=100)
SHARED = 8 << 20
PATIENCE = 90.0  # on a machine that has other work


def turn(caller: str = "all", priority: int = 2) -> Turn:
    return Turn(caller, priority)


async def ask(
    pool: SandboxPool,
    name: str,
    data: bytes = b"",
    options: bytes = b"",
    bounds: Bounds = BOUNDS,
    place: Turn | None = None,
    lane: str = "small",
    needs: Belonging | None = None,
) -> bytes:
    work = pool.submit(
        named(name), data, options, lane=lane, turn=place or turn(), cost=1.0, bounds=bounds, needs=needs
    )
    return bytes(await asyncio.wait_for(work, PATIENCE))


def workers() -> list[psutil.Process]:
    """The worker processes of this one, which may have servers of other tests as children too."""
    return [child for child in psutil.Process().children() if _is_worker(child)]


def _is_worker(child: psutil.Process) -> bool:
    try:
        return "-S" in child.cmdline()
    except psutil.ZombieProcess:  # it has ended, and nobody took its exit status
        return True


def with_pool(
    test: Callable[[SandboxPool], Awaitable[None]], count: int = 1, replaced: list[str] | None = None
) -> None:
    """Runs a test with a pool, and holds it to leave no process."""

    async def run() -> list[psutil.Process]:
        reasons = [] if replaced is None else replaced
        pool = SandboxPool(
            FUNCTIONS,
            {"small": count, "large": 1},
            SHARED,
            reasons.append,
            queue=partial(FairQueue, time.monotonic),
        )
        pool.start()
        try:
            await test(pool)
            return workers()
        finally:
            pool.close()
            await asyncio.sleep(0)

    _, alive = psutil.wait_procs(asyncio.run(run()), timeout=10)
    assert not alive


@pytest.mark.parametrize("size", [0, 5, 1 << 20, (1 << 20) + 1, 3_500_000])
def test_bytes_come_back_however_many_they_are(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]

    async def test(pool: SandboxPool) -> None:
        bounds = replace(BOUNDS, result_bytes=size + 2)
        for _ in range(2):
            assert await ask(pool, "echo", data, b"!!", bounds) == data + b"!!"

    with_pool(test)


def test_an_exception_comes_back_as_its_name_and_text() -> None:
    async def test(pool: SandboxPool) -> None:
        with pytest.raises(RefusedError, match="no\nthanks") as caught:
            await ask(pool, "refuse")
        assert caught.value.kind == "ValueError"
        with pytest.raises(RefusedError, match="1000 bytes") as too_much:
            await ask(pool, "too_much")
        assert too_much.value.kind == ResultTooLargeError.__name__
        assert await ask(pool, "echo", b"and on") == b"and on"

    with_pool(test)


@pytest.mark.parametrize(
    ("name", "options", "bounds", "reason"),
    [
        ("crash", b"", BOUNDS, "crash"),
        ("end", b"", BOUNDS, "crash"),
        ("spin", b"", replace(BOUNDS, cpu_seconds=0.2), "cpu"),
        ("sleep", b"", replace(BOUNDS, wall_seconds=0.3), "wall"),
        ("eat_memory", b"200000000", BOUNDS, "memory"),
    ],
)
def test_who_takes_too_much_is_replaced(name: str, options: bytes, bounds: Bounds, reason: str) -> None:
    replaced: list[str] = []

    async def test(pool: SandboxPool) -> None:
        await ask(pool, "echo")
        neighbour = asyncio.ensure_future(ask(pool, "sleep", options=b"1"))
        with pytest.raises(ExceededError) as caught:
            await ask(pool, name, options=options, bounds=bounds)
        assert caught.value.reason == reason
        assert replaced == [reason]
        assert await ask(pool, "echo", b"next") == b"next"
        assert await neighbour == b"slept"

    with_pool(test, 2, replaced)


def test_who_lies_is_replaced() -> None:
    """Whatever a process says that it could not say of its job ends it, and no other."""
    replaced: list[str] = []
    lies = (b"nonsense", b"long", b"other", b"again", b"larger")

    async def test(pool: SandboxPool) -> None:
        neighbour = asyncio.ensure_future(ask(pool, "sleep", lane="large"))
        for number, lie in enumerate(lies):
            assert await ask(pool, "echo", b"ready") == b"ready"
            with pytest.raises(ExceededError) as caught:
                await ask(pool, "lie", bytes([3 + 2 * number]), options=lie)
            assert caught.value.reason == "crash"
        assert replaced == ["crash"] * len(lies)
        assert not neighbour.done()
        neighbour.cancel()

    with_pool(test, 1, replaced)


def test_an_input_that_finds_no_memory_is_told_and_its_process_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaced: list[str] = []

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no memory is left")

    async def test(pool: SandboxPool) -> None:
        await ask(pool, "echo")
        with monkeypatch.context() as patched:
            patched.setattr(Worker, "write", full)
            with pytest.raises(MemoryShortError):
                await ask(pool, "echo", b"input")
        assert replaced == ["memory"]
        assert await ask(pool, "echo", b"next") == b"next"

    with_pool(test, 1, replaced)


def test_memory_that_cannot_be_given_back_costs_a_process_and_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaced: list[str] = []

    def short(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no address space is left")

    async def test(pool: SandboxPool) -> None:
        data = bytes(2 << 20)
        with monkeypatch.context() as patched:
            patched.setattr(Worker, "give_back", short)
            assert await ask(pool, "echo", data, bounds=replace(BOUNDS, result_bytes=len(data))) == data
        assert replaced == ["memory"]
        assert await ask(pool, "echo", b"next") == b"next"

    with_pool(test, 1, replaced)


def test_a_lane_goes_on_after_a_process_could_not_be_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory that is short for a moment costs the job of the process that ended, and no later one."""
    monkeypatch.setattr(processes, "RETRY_SECONDS", 0.05)

    async def test(pool: SandboxPool) -> None:
        await ask(pool, "echo")
        start = Worker._start

        def short(*_: object) -> None:
            monkeypatch.setattr(Worker, "_start", start)
            raise MemoryError

        monkeypatch.setattr(Worker, "_start", short)
        with pytest.raises(ExceededError):
            await ask(pool, "crash")
        assert await ask(pool, "echo", b"next") == b"next"

    with_pool(test)


def test_processes_that_do_not_start_are_told_of_once_with_their_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "RETRY_SECONDS", 0.05)

    async def run() -> None:
        pool = SandboxPool(["no_such_module:decode"], {"small": 1}, SHARED)
        pool.start()
        try:
            for _ in range(2):
                asked = pool.submit(
                    "no_such_module:decode", b"", lane="small", turn=turn(), cost=1.0, bounds=BOUNDS
                )
                with pytest.raises(MemoryShortError, match="no worker process can be started"):
                    await asyncio.wait_for(asked, PATIENCE)
            assert not pool.works
        finally:
            pool.close()

    with capture_logs() as told:
        asyncio.run(run())
    [entry] = told
    assert entry["log_level"] == "error"
    assert entry["error"] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_the_pace_is_learned_from_what_was_done_alone() -> None:
    """Whoever sends what is refused or ended would else make all work seem slow."""
    learned: list[tuple[str, float, float]] = []

    async def scenario() -> None:
        pool = SandboxPool(
            FUNCTIONS, {"small": 1, "large": 1}, SHARED, took=lambda *told: learned.append(told)
        )
        pool.start()
        try:
            with pytest.raises(RefusedError):
                await ask(pool, "refuse")
            with pytest.raises(ExceededError):
                await ask(pool, "crash")
            await ask(pool, "sleep", options=b"0.2", lane="large")
        finally:
            pool.close()
            await asyncio.sleep(0)

    asyncio.run(scenario())
    [(lane, cost, seconds)] = learned
    assert (lane, cost) == ("large", 1.0)
    assert 0.2 <= seconds < PATIENCE


def test_memory_that_fits_is_had() -> None:
    async def test(pool: SandboxPool) -> None:
        assert await ask(pool, "eat_memory", options=b"20000000") == b""

    with_pool(test)


def test_a_process_that_the_kernel_ends_means_that_memory_is_short() -> None:
    replaced: list[str] = []

    async def test(pool: SandboxPool) -> None:
        with pytest.raises(MemoryShortError):
            await ask(pool, "killed")
        assert await ask(pool, "echo", b"next") == b"next"
        assert replaced == ["memory"]

    with_pool(test, 1, replaced)


def test_a_process_can_open_nothing_and_knows_nothing() -> None:
    async def test(pool: SandboxPool) -> None:
        told = (await ask(pool, "open_files", bounds=replace(BOUNDS, result_bytes=1000))).decode()
        assert told.count("Too many open files") == 3
        assert told.count("(0, 0)") == 2
        assert "PATH" not in told
        assert "HOME" not in told

    with_pool(test)


def test_what_nobody_waits_for_leaves_alone() -> None:
    """One of three jobs of a request goes, from behind a job that never ends by itself."""

    async def test(pool: SandboxPool) -> None:
        await ask(pool, "echo")
        blocker = asyncio.ensure_future(ask(pool, "sleep"))
        await asyncio.sleep(0)
        mine = turn("me")

        def wait_for(word: bytes) -> asyncio.Future[bytearray]:
            return pool.submit(named("echo"), word, lane="small", turn=mine, cost=1.0, bounds=BOUNDS)

        asked = [wait_for(word) for word in (b"a", b"b", b"c")]
        kept = asyncio.ensure_future(ask(pool, "echo", b"kept", place=turn("they")))
        asked[1].cancel()
        await asyncio.sleep(0)
        blocker.cancel()
        assert [await asked[0], await asked[2]] == [b"a", b"c"]
        assert await kept == b"kept"
        assert asked[1].cancelled()
        assert pool.oldest_seconds(("small", "large")) == 0

    with_pool(test)


def test_a_job_that_runs_on_for_nobody_is_ended_soon() -> None:
    replaced: list[str] = []

    async def test(pool: SandboxPool) -> None:
        await ask(pool, "echo")
        left = asyncio.ensure_future(ask(pool, "sleep"))
        await asyncio.sleep(0.1)
        assert pool.oldest_seconds(("small",)) >= 0.1
        assert pool.oldest_seconds(("large",)) == 0, "it is another lane's"
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        await asyncio.sleep(0)
        assert pool.oldest_seconds(("small",)) == 0, "nobody waits for it"
        ended = workers()
        assert await ask(pool, "echo", b"next") == b"next"
        await asyncio.sleep(ABANDONED_SECONDS)
        assert {one.pid for one in ended} != {one.pid for one in workers()}
        assert replaced == [], "no bound was broken"

    with_pool(test, 1, replaced)


def test_the_age_counts_from_the_asking_on() -> None:
    async def test(pool: SandboxPool) -> None:
        await ask(pool, "echo")
        blocker = asyncio.ensure_future(ask(pool, "sleep", lane="large"))
        behind = asyncio.ensure_future(ask(pool, "echo", lane="large"))
        await asyncio.sleep(0.2)
        assert pool.oldest_seconds(("large",)) >= 0.2
        blocker.cancel()
        await behind

    with_pool(test)


def test_lanes_do_not_wait_for_each_other_and_callers_take_turns() -> None:
    async def test(pool: SandboxPool) -> None:
        await asyncio.gather(ask(pool, "echo"), ask(pool, "echo", lane="large"))
        large = asyncio.ensure_future(ask(pool, "sleep", lane="large"))
        order: list[str] = []

        async def one(caller: str, place: Turn) -> None:
            await ask(pool, "sleep", options=b"0.01", place=place)
            order.append(caller)

        first, second = turn("greedy"), turn("modest")
        greedy = [asyncio.ensure_future(one("greedy", first)) for _ in range(6)]
        modest = asyncio.ensure_future(one("modest", second))
        await asyncio.gather(*greedy, modest)
        assert order.index("modest") <= 2
        assert not large.done()
        large.cancel()

    with_pool(test)


def test_ctrl_c_and_a_drain_leave_the_work_alone() -> None:
    async def test(pool: SandboxPool) -> None:
        asked = asyncio.ensure_future(ask(pool, "sleep", options=b"0.5"))
        await ask(pool, "echo", lane="large")
        for child in workers():
            child.send_signal(signal.SIGINT)
            child.send_signal(signal.SIGTERM)
        assert await asked == b"slept"

    with_pool(test)


def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, psutil
from mass_serve.sandbox.pool import SandboxPool
from tests.sandbox.test_pool import FUNCTIONS, SHARED, ask
async def main():
    pool = SandboxPool(FUNCTIONS, {{"small": 1}}, SHARED)
    pool.start()
    await ask(pool, "echo")
    open({str(tmp_path / "pids")!r}, "w").write(" ".join(str(c.pid) for c in psutil.Process().children()))
    await ask(pool, "spin")
asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closing_ends_what_runs_and_drops_what_waits() -> None:
    async def run() -> None:
        pool = SandboxPool(FUNCTIONS, {"small": 1}, SHARED)
        pool.start()
        asked = [
            pool.submit(named("spin"), b"", lane="small", turn=turn(), cost=1.0, bounds=BOUNDS)
            for _ in range(3)
        ]
        await asyncio.sleep(0.2)
        pool.close()
        for future in asked:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(future, 10)
        assert workers() == []

    asyncio.run(run())


def belonging(content: bytes, beside: int = 0, bounds: Bounds = BOUNDS) -> Belonging:
    """Something to keep, and so many bytes beside that the process has to keep, too."""
    return Belonging(content[:20].decode(), named("keep"), content, b"%d" % beside, bounds)


def test_a_process_is_given_what_a_job_needs_once() -> None:
    async def test(pool: SandboxPool) -> None:
        first = [await ask(pool, "tell_kept", b"x", needs=belonging(b"cat")) for _ in range(3)]
        assert first[0].startswith(b"cat 1 ")
        assert first[0].endswith(b" x")
        assert len(set(first)) == 1
        others = [await ask(pool, "tell_kept", needs=belonging(b"dog")) for _ in range(2)]
        assert others[0].startswith(b"dog ")
        assert others[0] == others[1]

    with_pool(test)


def test_jobs_go_to_the_process_that_has_what_they_need() -> None:
    async def test(pool: SandboxPool) -> None:
        cat = await ask(pool, "tell_kept", needs=belonging(b"cat"))
        sleeping = asyncio.ensure_future(ask(pool, "sleep", options=b"0.5", lane="large"))  # takes that one
        await asyncio.sleep(0)
        dog = await ask(pool, "tell_kept", needs=belonging(b"dog"))
        await sleeping
        for needs, told in ((belonging(b"cat"), cat), (belonging(b"dog"), dog)) * 2:
            assert await ask(pool, "tell_kept", needs=needs) == told
        assert cat.split()[2] != dog.split()[2]

    with_pool(test)


def test_a_process_in_place_of_another_is_given_it_again() -> None:
    async def test(pool: SandboxPool) -> None:
        before = await ask(pool, "tell_kept", needs=belonging(b"cat"))
        with pytest.raises(ExceededError):
            await ask(pool, "crash", needs=belonging(b"cat"))
        after = await ask(pool, "tell_kept", needs=belonging(b"cat"))
        assert after.split()[:2] == [b"cat", b"1"]
        assert after.split()[2] != before.split()[2]

    with_pool(test)


def test_what_is_kept_counts_as_the_process_s_own_memory() -> None:
    """A job may take as much as its bounds say, however much the process keeps."""

    async def test(pool: SandboxPool) -> None:
        within = b"%d" % (BOUNDS.memory_bytes // 3)  # it takes twice as much
        needs = belonging(b"cat", 3 * BOUNDS.memory_bytes, replace(BOUNDS, memory_bytes=800 << 20))
        assert await ask(pool, "eat_memory", options=within, needs=needs) == b""
        with pytest.raises(ExceededError, match="memory"):
            await ask(pool, "eat_memory", options=b"%d" % (2 * BOUNDS.memory_bytes), needs=needs)

    with_pool(test)


def test_what_takes_too_much_to_keep_fails_the_job_that_needs_it() -> None:
    async def test(pool: SandboxPool) -> None:
        with pytest.raises(ExceededError, match="memory"):
            await ask(pool, "tell_kept", needs=belonging(b"cat", 2 * BOUNDS.memory_bytes))
        with pytest.raises(RefusedError) as refused:
            await ask(pool, "tell_kept", needs=replace(belonging(b"cat"), options=b"many"))
        assert refused.value.kind == "ValueError"
        with pytest.raises(MemoryShortError, match="input finds no memory"):
            await ask(pool, "tell_kept", needs=belonging(b"c" * (SHARED + 1)))
        assert await ask(pool, "echo", b"a") == b"a"

    with_pool(test)


def test_what_nobody_waits_for_is_kept_all_the_same() -> None:
    async def test(pool: SandboxPool) -> None:
        needs = belonging(b"cat")
        work = pool.submit(
            named("tell_kept"), b"", lane="small", turn=turn(), cost=1.0, bounds=BOUNDS, needs=needs
        )
        await asyncio.sleep(0)
        work.cancel()
        assert (await ask(pool, "tell_kept", needs=needs)).startswith(b"cat 1 ")

    with_pool(test)
