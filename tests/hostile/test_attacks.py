"""Attacks that once starved everybody: each on a server of its own, watched from outside.

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
- truncated and corrupt images, decompression bombs, polyglots, odd modes: `tests/inputs` and
  `tests/engine/inputs`;
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

import pytest

from benchmarks.hostile.arena import Report, fight
from benchmarks.hostile.attacks import ATTACKS, Attack
from benchmarks.service.processes import running_server

# The 99th percentile of a hundred probes is the second worst, which a moment of another program's load can
# make late: what is late is measured again, and is wrong where it is late each time. All else is at once.
TRIES = 3


def fought(attack: Attack) -> Report:
    """An attack on a fresh server."""
    with running_server(None, variables=attack.variables, patience=5.0) as server:
        return fight(server, attack)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_nobody_else_is_starved(attack: Attack) -> None:
    for _ in range(TRIES):
        report = fought(attack)
        if report.faults() or not report.lateness():
            break
    assert report.complaints() == []
