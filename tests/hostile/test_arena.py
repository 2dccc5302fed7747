"""The arena sees what it is there to see: no server that is gone, deaf or rude passes for a fair one."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.hostile.arena import Report
from benchmarks.hostile.attacks import ATTACKS, Attack, attack
from benchmarks.hostile.watcher import NEIGHBOURS_SECONDS, PROBES_SECONDS, Sample
from benchmarks.hostile.wire import HUNG_UP, UNANSWERED, UNREACHABLE, ask, request

SECONDS = 6.0


def good_samples(every: float) -> list[Sample]:
    """As many good answers as were due."""
    return [Sample(number * every, 0.01, 200) for number in range(int(SECONDS / every))]


def fair() -> Report:
    """A report about which nobody complains."""
    return Report(
        attack=attack("scans"),
        bytes_sent=1,
        answers=Counter({413: 2}),
        seconds=SECONDS,
        probes=good_samples(PROBES_SECONDS),
        neighbours=good_samples(NEIGHBOURS_SECONDS),
        mates=good_samples(NEIGHBOURS_SECONDS),
        lag=0.0,
        calm_probe_p99=0.01,
        calm_memory=1 << 28,
        peak_memory=1 << 28,
        after="right",
        server_errors=0,
        log="",
    )


def with_one(samples: list[Sample], status: int) -> list[Sample]:
    """The samples, of which the first got something else."""
    return [replace(samples[0], status=status), *samples[1:]]


def test_a_fair_server_passes() -> None:
    assert fair().complaints() == []


@pytest.mark.parametrize("status", [HUNG_UP, UNREACHABLE, 503])
@pytest.mark.parametrize("whose", ["probes", "neighbours", "mates"])
def test_nobody_is_refused(whose: str, status: int) -> None:
    changed: dict[str, Any] = {whose: with_one(getattr(fair(), whose), status)}
    (fault,) = replace(fair(), **changed).faults()
    assert f"{{{status}: 1}}" in fault


@pytest.mark.parametrize("whose", ["probes", "neighbours", "mates"])
def test_as_many_ask_as_were_due(whose: str) -> None:
    samples = getattr(fair(), whose)
    for count in (len(samples) * 8 // 10, 0):
        changed: dict[str, Any] = {whose: samples[:count]}
        (fault,) = replace(fair(), **changed).faults()
        assert fault.startswith(f"only {count} of {len(samples)}")


@pytest.mark.parametrize("status", [HUNG_UP, UNREACHABLE, 200, 500])
def test_an_attacker_gets_what_is_fair(status: int) -> None:
    (fault,) = replace(fair(), answers=Counter({413: 1, status: 1})).faults()
    assert fault == f"the attacker got {{{status}: 1}}"


def test_hanging_up_is_fair_only_where_an_attack_says_so() -> None:
    def complaints(one: Attack) -> list[str]:
        return replace(fair(), attack=one, answers=Counter({HUNG_UP: 1})).complaints()

    fair_to = {one.name for one in ATTACKS if not complaints(one)}
    assert fair_to == {"small-chunks", "slow-small-chunks", "base64"}


def test_an_attacker_who_still_waits_is_late() -> None:
    report = replace(fair(), answers=Counter({413: 1, UNANSWERED: 1}))
    assert report.faults() == []
    assert report.lateness() == ["the attacker waited for 1 answers when it was broken off"]


Listen = Callable[[socket.socket], None]


def _ask(listen: Listen) -> int:
    """The status for one who asks a listener that is closed, deaf, or hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listen(listener)
        return asyncio.run(ask(port, request("GET", "/livez"), timeout=0.3)).status


def test_nobody_there_is_told_from_silence() -> None:
    assert _ask(socket.socket.close) == UNREACHABLE
    assert _ask(lambda _: None) == UNANSWERED
