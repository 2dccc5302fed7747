"""Measures how right the answers are on every suite.

    python -m benchmarks.accuracy SUITES --json benchmarks/results/accuracy.json [--only NAME ...]

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. Every mode answers all
of the `evaluation` part, without a calibration and with one: the store's own where it has been calibrated,
and otherwise one by the inputs of the `tuning` part, whose tasks nobody says. With `--only` the figures of
other suites in the file stay.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.accuracy.measure import measured
from benchmarks.by_suite import record


def main() -> None:
    """Prints a line for each suite and mode."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", type=Path, help="folder of the suites")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these suites of the folder")
    parser.add_argument("--json", type=Path, required=True, help="write the figures here")
    asked = parser.parse_args()
    names = asked.only or sorted(
        path.parent.parent.name for path in asked.suites.glob("*/store/manifest.json")
    )
    for name in names:
        found = measured(asked.suites / name)
        _print(name, found)
        record(asked.json, {name: found})


def _print(name: str, found: dict[str, Any]) -> None:
    for when in ("plain", "calibrated"):
        told = found[when]["unfamiliar"]["average"]
        for mode, figures in found[when]["modes"].items():
            average = figures["average"]
            print(
                f"{name}, {when}, {mode}: {average['normalised_accuracy']:.3f} of the individual accuracy,"
                f" task right {average['router_accuracy']:.3f}, {average['mean_passes']:.2f} passes",
                flush=True,
            )
        print(f"{name}, {when}: what no task covers is told with an AUROC of {told['auroc']:.3f}", flush=True)


if __name__ == "__main__":
    main()
