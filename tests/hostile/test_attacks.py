"""Attacks that once starved everybody, one after another on one server, watched from outside.

What each sends is in `benchmarks.hostile.attacks`, and what is held against it, with the bounds and their
reasons, in `benchmarks.hostile.arena`: the latency of /livez, the answers of good neighbours at the
attacker's address and at another one, memory, and the same server answering right afterwards.
`python -m benchmarks.hostile attacks` prints the same as a table.

The other attacks of this kind are in `test_processes.py` (no threads, no memory, no descriptors, stores that
hang or lie) and `test_fuzz.py` (thousands of mutated bodies and requests). Attacks that held from the
beginning, and where each is tested:

- slow clients: slow headers, bodies, readers, silent connections; bodies that fill the memory slowly;
  connections beyond the limit: `tests/server/web/test_slow_clients.py`;
- 10,000 requests of all kinds, most of them wrong, beside 500 idle connections:
  `tests/server/web/test_abuse.py`;
- truncated and corrupt images, decompression bombs, polyglots, odd modes: `tests/inputs`;
- malformed JSON, base64, forms, tensors, gzip bombs, a thousand gzip members, deep nesting:
  `tests/server/protocols`;
- SIGTERM under load loses nothing; a hung or dead device is noticed: `tests/server/test_lifecycle.py`;
- SIGKILL wherever a request was, and the next server just starts: `tests/server/test_killed.py`;
- clocks that jump: `tests/server/test_clock.py`;
- kills in a build, which resumes to the same bits: `tests/model_store/test_crash_safety.py`;
- swaps of revisions under load: `tests/server/serving/test_hot_store.py`, `benchmarks/service/hot_swap.py`;
- keys that are wrong, long, or not ASCII, and key files that change: `tests/server/serving/test_keys.py`;
- stores that leave their folder, lie about sizes and hashes, or ask for memory: `tests/model_store/format`;
- checkpoints with pickles, with false headers, with missing or odd tensors: `tests/model_store/readers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing

import pytest

from benchmarks.hostile.arena import PICTURE, Report, fight
from benchmarks.hostile.attacks import ATTACKS, MIB, Attack
from benchmarks.hostile.watcher import resident
from benchmarks.service.processes import Server, running_server
from tests.interpreter import InterpretedRuns
from tests.server_processes import wait_for

# The 99th percentile of two hundred probes is the third worst, which a moment of another program's load can
# make late: what is late is measured again, and is wrong where it is late each time. All else is at once.
TRIES = 3
# What allocators and the workers that parse may keep of an attack: 306 MiB were seen after the worst, two
# thirds of it of workers, and in one run over 400.
KEPT = 560 * MIB
# Memory is counted from that of a fresh server, so those that may take the most come last.
IN_ORDER = sorted(ATTACKS, key=lambda attack: (sorted(attack.variables), attack.growth))


class Ring:
    """Holds the server that is attacked; another for other settings, and after an attack it did not bear."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._server: Server | None = None
        self._variables: Mapping[str, str] = {}
        self._calm_memory = 0

    def fought(self, attack: Attack) -> Report:
        """Attacks the server that has these settings."""
        if self._server is None or attack.variables != self._variables:
            self.close()
            self._server, self._variables = self._started(attack.variables), attack.variables
        return fight(self._server, attack, calm_memory=self._calm_memory)

    def _started(self, variables: Mapping[str, str]) -> Server:
        server = self._running.enter_context(running_server(None, variables=variables, patience=5.0))
        server.client.post("/v1/classify", content=PICTURE.read_bytes()).raise_for_status()
        self._calm_memory = resident(server.process.pid)
        return server

    def kept(self) -> int:
        """Returns the bytes of memory that it has more than at first."""
        assert self._server is not None
        return resident(self._server.process.pid) - self._calm_memory

    def close(self) -> None:
        """Stops the server."""
        self._running.close()
        self._server = None


@pytest.fixture(scope="module")
def ring(interpreted: InterpretedRuns) -> Iterator[Ring]:
    interpreted.wait()  # else they keep all cores busy, and everybody is late
    with closing(Ring()) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("attack", IN_ORDER, ids=[attack.name for attack in IN_ORDER])
def test_nobody_else_is_starved(ring: Ring, attack: Attack) -> None:
    try:
        for _ in range(TRIES):
            report = ring.fought(attack)
            if report.faults() or not report.lateness():
                break
        assert report.complaints() == []
        wait_for(lambda: ring.kept() < KEPT)
    except Exception:
        ring.close()  # the next attack is not to be blamed for it
        raise
