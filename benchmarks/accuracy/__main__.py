"""Measures how right the answers are on every suite.

    python -m benchmarks.accuracy SUITES --json benchmarks/results/accuracy.json [--only NAME ...]

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. Every mode answers at
most 120 inputs of a task of the `evaluation` part, without a calibration and with one: the store's own where
it has been calibrated, and otherwise one by the inputs of the `tuning` part, whose tasks nobody says. With
`--only` the figures of other suites in the file stay.
"""

from __future__ import annotations

from typing import Any

from benchmarks.accuracy.measure import measured
from benchmarks.by_suite import asked_suites


def main() -> None:
    """Prints a line for each suite and mode."""
    asked = asked_suites(__doc__)
    for suite in asked.suites:
        found = measured(suite)
        _print(suite.name, found)
        asked.record(suite.name, found)


def _print(name: str, found: dict[str, Any]) -> None:
    for when in ("plain", "calibrated"):
        for mode, figures in found[when].items():
            average = figures["average"]
            print(
                f"{name}, {when}, {mode}: {average['normalised_accuracy']:.3f} of the individual accuracy,"
                f" task right {average['router_accuracy']:.3f}, {average['mean_passes']:.2f} passes",
                flush=True,
            )


if __name__ == "__main__":
    main()
