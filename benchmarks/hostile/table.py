"""The attacks as a table: one fresh server and one row for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.hostile.arena import Report, fight
from benchmarks.hostile.attacks import LONGEST_ANSWER, MIB, Attack
from benchmarks.hostile.lines import Line
from benchmarks.hostile.watcher import Sample
from benchmarks.hostile.wire import HUNG_UP, UNANSWERED, UNREACHABLE
from benchmarks.service.processes import running_server

# Long enough to see requests run into the time limit of 30 seconds.
MOST_SECONDS = 35.0
COLUMNS = (
    *(
        "what",
        "bytes sent",
        "attacker got",
        "`/livez` p99",
        "calm before",
        "lag of the machine",
        "worst neighbour",
        "worst at the same address",
    ),
    *("memory", "5xx", "after", "held"),
)
WORDS = {HUNG_UP: "hung up", UNANSWERED: "no answer yet", UNREACHABLE: "not let in"}


def rows(attacks: Sequence[Attack], checkout: Path | None) -> Iterator[Line]:
    """The table's lines as they come; `checkout` is another version's folder."""
    yield Line(f"| {' | '.join(COLUMNS)} |")
    yield Line(f"|{'---|' * len(COLUMNS)}")
    for attack in attacks:
        with running_server(None, checkout=checkout, variables=attack.variables, patience=5.0) as server:
            report = fight(server, attack, MOST_SECONDS)
            yield Line(row(report), held=not report.complaints())


def row(report: Report) -> str:
    """Writes one report as a line."""
    growth = (report.peak_memory - report.calm_memory) / MIB
    cells = (
        report.attack.what,
        _bytes(report.bytes_sent),
        _answers(report.answers),
        f"{1000 * report.probe_p99:,.0f} ms",
        f"{1000 * report.calm_probe_p99:,.0f} ms",
        f"{1000 * report.lag:,.0f} ms",
        _worst(report.neighbours),
        _worst(report.mates),
        f"{report.calm_memory / MIB:,.0f} {growth:+,.0f} MiB",
        f"{report.server_errors:g}",
        report.after,
        "no" if report.complaints() else "yes",
    )
    return f"| {' | '.join(cells)} |"


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count > 1e6 else f"{count / 1e3:,.1f} KB"


def _answers(answers: Counter[int]) -> str:
    return ", ".join(f"{count} x {WORDS.get(status, status)}" for status, count in sorted(answers.items()))


def _worst(samples: list[Sample]) -> str:
    """The longest wait; how many were not answered right, or late, of how many."""
    failed = sum(sample.status != 200 or sample.seconds > LONGEST_ANSWER for sample in samples)
    longest = max(sample.seconds for sample in samples)
    return f"{longest:.2f} s" + (f" ({failed} of {len(samples)} late or refused)" if failed else "")
