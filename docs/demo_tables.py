"""What the tables of both demos of real data have in common: sources, and figures by mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from docs.markup import code, table
from examples.from_packages.packages import Package

# What the rows below the modes are called, and which accuracy they have: the model by itself, and with the
# task named.
KNOWN = (("task named", "tsv_c"), ("individual", "individual"))


def sources_table(packages: Iterable[Package]) -> str:
    """The packages with what is taken from them."""
    rows = [(f"{p.name} {p.version}".strip(), p.registry, p.licence, p.holds) for p in packages]
    return table(("package", "from", "licence", "what is taken"), rows)


def modes_table(run: Any, modes: Sequence[str], one: str) -> str:
    """A row a mode: accuracy with the task unknown, what it costs, and the same after calibration.

    `one` is what a single input is called.
    """
    head = (
        *("mode", "accuracy", "95 %", "share of individual", "router right", "passes"),
        *(f"ms, one {one}", "ms, of 32", "calibrated: accuracy", "share", "router right", "passes"),
    )
    rows = [_mode_row(mode, run) for mode in modes]
    return table(head, [*rows, *(_known_row(*names, run) for names in KNOWN)])


def three(value: float) -> str:
    """A figure to three places."""
    return f"{value:.3f}"


def _mode_row(mode: str, run: Any) -> tuple[str, ...]:
    plain, calibrated = run["modes"][mode], run["calibrated"].get(mode)
    interval = " to ".join(map(three, plain["interval"]))
    before = (three(plain["accuracy"]), interval, *_routed(plain), *_times(mode, run))
    after = (three(calibrated["accuracy"]), *_routed(calibrated)) if calibrated else [""] * 4
    return (code(mode), *before, *after)


def _known_row(name: str, accuracy: str, run: Any) -> tuple[str, ...]:
    average = run["average"][accuracy]
    share = average / run["average"]["individual"]
    return (name, three(average), "", three(share), "", "1.00", *_times(name, run), *[""] * 4)


def _routed(figures: Any) -> tuple[str, str, str]:
    share, router = figures["normalised_accuracy"], figures["router_accuracy"]
    return three(share), three(router), f"{figures['mean_passes']:.2f}"


def _times(name: str, run: Any) -> tuple[str, str]:
    one, many = (run["milliseconds"][count][name] for count in ("1", "32"))
    return f"{one:.1f}", f"{many:.1f}"
